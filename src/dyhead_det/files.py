"""Files: opened without waiting, written whole or not at all, in folders tried before the work."""

import errno
import os
import platform
import re
import shutil
import stat
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from dyhead_det.errors import ConfigError

_UNFINISHED = ".unfinished"
# Characters of a name, since most file systems bound it by 255 bytes.
_SHOWN_NAME, _SHOWN_HOST = 30, 20
VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv")
)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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


def cache_folder() -> Path:
    """Return where what can be made again is kept: below XDG_CACHE_HOME, or ~/.cache."""
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a user without a home; the folder of temporary files is everybody's
        cache = Path(tempfile.gettempdir()) / f"cache-{os.getuid()}"
    return cache / "dyhead-det"


def video_advice(path: Path) -> str | None:
    """Return what to say where a video is given in place of another file; None if it is none."""
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        return None
    return f"{path} is a video; the command for videos is dyhead-det predict CHECKPOINT VIDEO"


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

    Raises:
        OSError: If it cannot be written, naming `path` where Python names no file.
    """
    unfinished = _unfinished_path(path)
    unfinished.unlink(missing_ok=True)  # it may be a second name of a file that is still needed
    try:
        with _errors_named(path, unfinished):
            yield unfinished
            if durable:
                _sync(unfinished)
            if previous is not None and path.exists():
                link_or_copy(path, previous)
            unfinished.replace(path)
            if durable and os.name == "posix":  # elsewhere a folder cannot be opened
                _sync(path.parent)
    finally:
        with suppress(OSError):  # a disk that has become read-only says so above
            unfinished.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(folder: Path) -> Iterator[Path]:
    """Give another folder to fill, and put it in the place of `folder` at the end.

    Raises:
        OSError: As `written_whole`.
    """
    unfinished = _unfinished_path(folder)
    new = unfinished / "new"
    try:
        with _errors_named(folder, unfinished):
            new.mkdir(parents=True)
            yield new
            if folder.exists():
                folder.rename(unfinished / "replaced")
            new.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


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
        _remove(path)


def remove_abandoned(folder: Path) -> None:
    """Remove what processes of this machine that are no more have left unfinished."""
    with suppress(OSError):  # what cannot be removed is in nobody's way
        for path in folder.glob(f".*{_own_end('*')}"):
            number = path.name.removesuffix(_UNFINISHED).rpartition("-")[2]
            if number.isdecimal() and not _is_running(int(number)):
                _remove(path)


def require_writable(folder: Path, *names: str, option: str = "--out") -> None:
    """Make a folder and try to write there, before the work whose results it shall take.

    What killed processes of this machine have left there is removed.

    Args:
        folder: Made where it is not there yet, with its parents.
        names: Of the files that will be written: none of them may be a folder.
        option: How another folder is given.

    Raises:
        ConfigError: If nothing can be written there.
        OSError: If the disk is full.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            if (folder / name).is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), folder / name)
        trial = _unfinished_path(folder / "trial")
        try:
            trial.write_bytes(b"trial")
        finally:
            trial.unlink(missing_ok=True)
        remove_abandoned(folder)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise OSError(error.errno, error.strerror, str(folder)) from error
        raise not_writable(folder, error, option=option) from error


def not_writable(folder: Path, error: OSError, *, option: str = "--out") -> ConfigError:
    """Say that nothing can be written to a folder, and what to do."""
    is_inside = error.filename is not None and Path(error.filename).parent == folder
    place = error.filename if is_inside and error.errno == errno.EISDIR else folder
    return ConfigError(
        f"{place}: cannot be written ({error.strerror}); give another folder by {option}"
    )


def require_new(path: Path, *, overwrite: bool) -> None:
    """Refuse to replace a file unless that is asked for.

    Raises:
        ConfigError: If there is something at `path`.
    """
    if path.exists() and not (overwrite and path.is_file()):
        how = "replace it by --overwrite" if path.is_file() else "it is no file"
        raise ConfigError(f"{path} is there already; give another name, or {how}")


@contextmanager
def _errors_named(path: Path, unfinished: Path) -> Iterator[None]:
    """Let errors of the system that name no file, or the unfinished one, name `path`."""
    try:
        yield
    except OSError as error:
        named = Path(os.fsdecode(error.filename)) if error.filename is not None else unfinished
        if error.errno is None or not named.is_relative_to(unfinished):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _unfinished_path(path: Path) -> Path:
    """Return a name in the same folder that no other file and no other process has."""
    digest = zlib.crc32(os.fsencode(path.name))
    return path.with_name(f".{path.name[:_SHOWN_NAME]}.{digest:08x}{_own_end(str(os.getpid()))}")


def _own_end(process: str) -> str:
    """Return how the unfinished files of a process of this machine end."""
    host = re.sub(r"[^A-Za-z0-9.]", "", platform.node())[:_SHOWN_HOST]
    return f"-{host}-{process}{_UNFINISHED}"


def _is_running(process: int) -> bool:
    if os.name != "posix":  # where signal 0 would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's
        return True
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
