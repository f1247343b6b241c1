"""Standard streams as a command writes to them: closed, full, read by nobody, of any encoding.

Results go to stdout, all else to stderr. What goes to stderr is lost where it cannot be written;
results that cannot be written are an error, unless the reader of a pipe has had enough.
"""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

import typer

from dyhead_det.escaping import printable_lines

# Windows calls a pipe whose reader has gone invalid.
_NOBODY_READS = (errno.EPIPE, errno.EINVAL)


def prepare_streams() -> None:
    """Open closed streams to nowhere, and let every character be written.

    Without that, files that are opened later take the numbers of closed streams, and whatever
    writes to those, native libraries too, writes into these files.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest free number: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, "r" if descriptor == 0 else "w"))  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def echo(text: object) -> None:
    """Write results to stdout, a line or several, with nothing in them that a terminal obeys.

    Raises:
        OSError: Naming stdout, if it cannot be written, as on a full disk.
    """
    with _writing_results():
        typer.echo(printable_lines(text))
        sys.stdout.flush()


def write_message(text: str) -> None:
    """Write to stderr, if that is possible."""
    try:
        typer.echo(text, err=True)
    except (OSError, ValueError):
        _send_nowhere(sys.stderr)


def flush_streams() -> None:
    """Write what waits, while it can still be said that it cannot be written; errors as `echo`."""
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        _send_nowhere(sys.stderr)
    with _writing_results():
        sys.stdout.flush()


@contextmanager
def _writing_results() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _send_nowhere(sys.stdout)
        if error.errno not in _NOBODY_READS:
            raise OSError(error.errno, error.strerror, "standard output") from error


def _send_nowhere(stream: TextIO) -> None:
    """Send what waits in a stream, and all that comes, nowhere: Python flushes it at its end."""
    with suppress(OSError, ValueError):  # whoever replaced the stream may give it no descriptor
        descriptor = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
