"""Images behind a URL: a folder or tar archives in any file system that fsspec knows.

Nothing is held open: fsspec keeps connections for each process, and its objects must not be shared
by processes that were forked, so each access asks it for the file system anew.
"""

import errno
import logging
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from dyhead_det.data.stores.folder import composed
from dyhead_det.data.stores.store import StoredFile
from dyhead_det.errors import ConfigError, DatasetError
from dyhead_det.escaping import printable

logger = logging.getLogger(__name__)

# Seconds before another try: a run that reads millions of files meets a lost connection.
_PAUSES = (1, 5)
# What tells one state of a file from another, under the names that file systems use.
_STAMPS = ("size", "etag", "mtime", "lastmodified", "last-modified", "last_modified", "created")
_WITHOUT_LISTING = re.compile("(^|::)https?://")


@dataclass(frozen=True, slots=True)
class RemoteArchive:
    """An archive behind a URL."""

    url: str

    def __str__(self) -> str:
        return self.url

    def stamp(self) -> str:
        """Return what its file system says that changes with the content."""
        with _explained(self.url):
            system, path = file_system(self.url)
            about = {key.lower(): value for key, value in system.info(path).items()}
        return " ".join(f"{key}={about[key]}" for key in _STAMPS if key in about)

    def open(self) -> BinaryIO:
        """Open it; what is read is fetched in blocks of some megabytes."""
        with _explained(self.url):
            system, path = file_system(self.url)
            return cast(BinaryIO, system.open(path, "rb"))

    def read(self, start: int, size: int) -> bytes:
        """Return a part of it."""
        return _fetch(self.url, start=start, end=start + size)


class RemoteFolder:
    """An `ImageStore`: the files below a URL."""

    def __init__(self, url: str) -> None:
        self.location = url.rstrip("/")
        file_system(url)  # it says so at once if it cannot be had

    def __str__(self) -> str:
        return self.location

    def __contains__(self, name: str) -> bool:
        with _explained(self.location):
            system, path = file_system(self.title(name))
            return bool(system.exists(path))

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return the names, of many, that no file has; none of HTTP's, where nothing is listed.

        Raises:
            DatasetError: If the folder cannot be listed.
        """
        if _WITHOUT_LISTING.search(self.location):
            logger.info("%s: an image that is missing is noticed when it is read", self)
            return []
        try:
            with _explained(self.location):
                system, path = file_system(self.location)
                there = {found.removeprefix(f"{path}/") for found in system.find(path)}
        except OSError as error:
            raise DatasetError(f"{self} cannot be listed: {error.strerror or error}") from error
        if not there:
            raise DatasetError(f"no images folder at {self}")
        return [name for name in names if name not in there]

    def spelled_as_there(self, name: str) -> str:
        """Return the name in Unicode's composed form where it is there in no other."""
        return name if name.isascii() or name in self else composed(name)

    def in_another_case(self, name: str) -> None:
        """Return nothing: that would need a listing for each name."""

    def file(self, name: str) -> StoredFile:
        """Return a file, which need not be there."""
        return StoredFile(self, name)

    def title(self, name: str) -> str:
        """Return the URL of a file."""
        return f"{self.location}/{name}"

    def read(self, name: str) -> bytes:
        """Return all bytes of a file; errors as `FileReader.read`."""
        return _fetch(self.title(name))


def file_system(url: str) -> tuple[Any, str]:
    """Return fsspec's file system of a URL for this process, and the path there.

    Raises:
        ConfigError: If fsspec, or what it needs for this kind of URL, is not installed.
    """
    try:
        from fsspec.core import url_to_fs  # noqa: PLC0415 - an extra

        system, path = url_to_fs(url)
    except ImportError as error:
        raise ConfigError(
            f"{url}: {printable(error, max_length=200)}; pip install 'dyhead-det[remote]' brings "
            "file, memory and https, s3fs and gcsfs bring s3 and gs"
        ) from error
    except ValueError as error:  # a protocol that nobody knows
        raise ConfigError(f"{url}: {printable(error, max_length=200)}") from error
    return system, str(path)


def _fetch(url: str, *, start: int | None = None, end: int | None = None) -> bytes:
    """Return a file or a part of it, with further tries where the connection is lost.

    Raises:
        OSError: If there is none, or it cannot be read.
    """
    for pause in _PAUSES:
        try:
            return _fetch_once(url, start, end)
        except (FileNotFoundError, PermissionError):
            raise
        except OSError as error:
            logger.debug("%s: %s; once more in %d seconds", url, error, pause)
            time.sleep(pause)
    return _fetch_once(url, start, end)


def _fetch_once(url: str, start: int | None, end: int | None) -> bytes:
    with _explained(url):
        system, path = file_system(url)
        return bytes(system.cat_file(path, start=start, end=end))


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Let whatever the library of a protocol raises be an `OSError` with its reason."""
    try:
        yield
    except (OSError, ConfigError):
        raise
    except Exception as error:  # of its own in every protocol's library
        reason = printable(f"{type(error).__name__}: {error}", max_length=200)
        raise OSError(errno.EIO, reason, url) from error
