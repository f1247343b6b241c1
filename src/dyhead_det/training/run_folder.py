"""The folder of a run: held by one process at a time, and read again after whatever happened."""

import logging
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from dyhead_det.checkpoints.checkpoint import Checkpoint, load_checkpoint
from dyhead_det.checkpoints.torch_files import find_damage
from dyhead_det.errors import CheckpointError, ConfigError
from dyhead_det.files import not_writable, remove_unfinished

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

logger = logging.getLogger(__name__)

LAST = "last.pt"
PREVIOUS = "previous.pt"
BEST = "best.pt"
METRICS = "metrics.jsonl"
REPORT = "report.html"

# Windows locks bytes, which nobody can read then: one far behind the text.
_LOCKED_BYTE = 1 << 30


@contextmanager
def held_folder(folder: Path) -> Iterator[None]:
    """Make a folder and hold it against other runs; the system ends the hold with the process.

    A folder that was made here and is still empty at the end is removed.

    Raises:
        ConfigError: If another run holds the folder, or nothing can be written there.
    """
    is_new = not folder.exists()
    lock_path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = lock_path.open("ab+", buffering=0)
    except OSError as error:
        raise not_writable(folder, error) from error
    try:
        with lock:
            _hold(lock, folder)
            remove_unfinished(folder)
            yield
    finally:
        if is_new and list(folder.iterdir()) == [lock_path]:
            lock_path.unlink()
            folder.rmdir()


def load_last(folder: Path) -> Checkpoint | None:
    """Read the newest whole checkpoint of a run, if there is one; set a damaged one aside.

    Raises:
        CheckpointError: If no checkpoint of the run can be read.
    """
    last, previous = folder / LAST, folder / PREVIOUS
    if not last.exists() and not previous.exists():
        return None
    try:
        return load_checkpoint(last)
    except CheckpointError as error:
        if not previous.exists() or find_damage(last) is None:
            raise
        checkpoint = load_checkpoint(previous)
        logger.warning("%s; falling back to %s of step %d", error, previous, checkpoint.step)
    if last.exists():
        last.replace(folder / "damaged.pt")  # it must not become the previous one
    return checkpoint


def _hold(lock: FileIO, folder: Path) -> None:
    """Lock an open file until it is closed: unlike a mere file, that cannot be left behind.

    `lockf` gives child processes no share in the lock; some outlive a killed run for seconds.
    """
    try:
        if sys.platform == "win32":
            lock.seek(_LOCKED_BYTE)
            msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        lock.seek(0)
        holder = lock.readall().decode(errors="replace")
        msg = (
            f"{folder}: another run is going on there ({holder}); wait for its end, or give "
            "another folder by --out"
        )
        raise ConfigError(msg) from error
    except OSError as error:
        logger.warning("%s: cannot be held against other runs (%s)", folder, error.strerror)
    try:
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {platform.node()}".encode())
    except OSError as error:
        raise not_writable(folder, error) from error
