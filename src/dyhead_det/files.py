"""Files: opened without waiting, written whole or not at all."""

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dyhead_det.errors import ConfigError

_UNFINISHED = ".unfinished"


def open_file(path: Path) -> BinaryIO:
    """Open a file to read its bytes, without waiting for what is no file.

    Opening a named pipe waits until somebody writes to it, and a device may never end.

    Raises:
        OSError: If it cannot be opened, or is a folder, a named pipe, a device or a socket.
    """
    # The two flags have no meaning on Windows, which has no pipes in folders.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "Is a named pipe, a device or a socket", str(path))
        return os.fdopen(descriptor, "rb")
    except OSError:
        os.close(descriptor)
        raise


@contextmanager
def written_whole(
    path: Path, *, durable: bool = False, previous: Path | None = None
) -> Iterator[Path]:
    """Give another name to write under, and rename it to `path` at the end.

    Whatever happens in between, the file at `path` is complete: the old one or the new one.

    Args:
        path: The final name.
        durable: Also force file and folder to the disk, so that a power loss takes neither.
        previous: Where the old file is kept, from when the new one is complete.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}{_UNFINISHED}")
    unfinished.unlink(missing_ok=True)  # it may be a second name of a file that is still needed
    try:
        yield unfinished
        if durable:
            _sync(unfinished)
        if previous is not None and path.exists():
            link_or_copy(path, previous)
        unfinished.replace(path)
        if durable and os.name == "posix":  # elsewhere a folder cannot be opened
            _sync(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def link_or_copy(path: Path, other: Path) -> None:
    """Give a file that is never changed in place a second name, whoever had that before."""
    with written_whole(other) as unfinished:
        try:
            os.link(path, unfinished)
        except OSError:  # not every file system has links
            shutil.copyfile(path, unfinished)


def remove_unfinished(folder: Path) -> None:
    """Remove what `written_whole` left where it was killed; nobody may be writing there."""
    for path in folder.glob(f".*{_UNFINISHED}"):
        path.unlink()


def not_writable(folder: Path, error: OSError) -> ConfigError:
    """Say that nothing can be written to a folder, and what to do."""
    return ConfigError(
        f"{folder}: cannot be written ({error.strerror}); give another folder by --out"
    )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
