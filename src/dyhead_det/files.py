"""Files that are written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Give another name to write under, and rename it to `path` at the end.

    Whatever happens in between, the file at `path` is complete: the old one or the new one.

    Args:
        path: The final name.
        durable: Also force file and folder to the disk, so that a power loss takes neither.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield unfinished
        if durable:
            _sync(unfinished)
        unfinished.replace(path)
        if durable and os.name == "posix":  # elsewhere a folder cannot be opened
            _sync(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
