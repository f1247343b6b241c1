"""Images behind a URL: a folder or tar archives in any file system that fsspec knows.

Nothing is held open: fsspec keeps connections for each process, and its objects must not be shared
by processes that were forked, so each access asks it for the file system anew.
"""

import errno
import io
import logging
import posixpath
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import quote

from dyhead_det.data.stores.folder import composed
from dyhead_det.data.stores.store import StoredFile
from dyhead_det.errors import ConfigError, DatasetError
from dyhead_det.escaping import printable, without_passwords

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

logger = logging.getLogger(__name__)

# Seconds before another try: a run that reads millions of files meets a lost connection.
_PAUSES = (1, 5)
# What tells one state of a file from another, under the names that file systems use.
_STAMPS = ("size", "etag", "mtime", "lastmodified", "last-modified", "last_modified", "created")
_BY_HTTP = re.compile("(^|::)https?://")
_HEADER_BLOCK = 2**22  # bytes


@dataclass(frozen=True, slots=True)
class RemoteArchive:
    """An archive behind a URL."""

    url: str

    def __str__(self) -> str:
        return without_passwords(self.url)

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
            size = system.size(path)
        if size is None:
            raise OSError(errno.EIO, "the server does not tell its size", str(self))
        parts = _Parts(self, int(size))
        return cast(BinaryIO, io.BufferedReader(parts, buffer_size=_HEADER_BLOCK))

    def read(self, start: int, size: int) -> bytes:
        """Return a part of it."""
        content = _fetch(self.url, start=start, end=start + size)
        if len(content) > size:
            raise OSError(errno.EIO, "the server sends all of it where a part is asked for")
        return content


class _Parts(io.RawIOBase):
    """An archive as a file: each part that is read is fetched, and tried again like an image."""

    def __init__(self, archive: RemoteArchive, size: int) -> None:
        super().__init__()
        self._archive = archive
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        part = memoryview(buffer).cast("B")
        size = max(0, min(len(part), self._size - self._position))
        content = self._archive.read(self._position, size) if size else b""
        part[: len(content)] = content
        self._position += len(content)
        return len(content)


class RemoteFolder:
    """An `ImageStore`: the files below a URL."""

    def __init__(self, url: str) -> None:
        self.location = url.rstrip("/")
        self._is_http = is_http(url)
        self._listed = cache(self._list)
        file_system(url)  # it says so at once if it cannot be had

    def __reduce__(self) -> tuple[type["RemoteFolder"], tuple[str]]:
        return RemoteFolder, (self.location,)  # without what was listed

    def __str__(self) -> str:
        return without_passwords(self.location)

    def __contains__(self, name: str) -> bool:
        if not self._is_http:
            return posixpath.normpath(name) in self._listed()
        with _explained(self.location):
            system, path = file_system(self._url(name))
            return bool(system.exists(path))

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return the names, of many, that no file has; none of HTTP's, where nothing is listed.

        Raises:
            DatasetError: If the folder cannot be listed.
        """
        if self._is_http:
            logger.info("%s: an image that is missing is noticed when it is read", self)
            return []
        if not self._listed():
            raise DatasetError(f"no images folder at {self}")
        return [name for name in names if name not in self]

    def _list(self) -> frozenset[str]:
        try:
            with _explained(self.location):
                system, path = file_system(self.location)
                found = system.find(path)
        except OSError as error:
            raise DatasetError(f"{self} cannot be listed: {error.strerror or error}") from error
        return frozenset(name.removeprefix(f"{path}/") for name in found)

    def spelled_as_there(self, name: str) -> str:
        """Return the name in Unicode's composed form where it is there in no other.

        Behind HTTP, where that would be a request for each name, it stays as it is.
        """
        return name if name.isascii() or self._is_http or name in self else composed(name)

    def in_another_case(self, name: str) -> None:
        """Return nothing: that would need a listing for each name."""

    def file(self, name: str) -> StoredFile:
        """Return a file, which need not be there."""
        return StoredFile(self, name)

    def title(self, name: str) -> str:
        """Return what messages call a file: its URL, without passwords."""
        return f"{self}/{name}"

    def read(self, name: str) -> bytes:
        """Return all bytes of a file; errors as `FileReader.read`."""
        return _fetch(self._url(name))

    def _url(self, name: str) -> str:
        """Return the URL of a file.

        Raises:
            OSError: If the name would make it another one.
        """
        if "::" in name:  # joins file systems in a URL
            raise OSError(errno.EINVAL, "has :: in its name", self.title(name))
        name = posixpath.normpath(name)
        return f"{self.location}/{quote(name) if self._is_http else name}"


def is_http(url: str) -> bool:
    """Tell whether files are read by HTTP: names are parts of addresses, and nothing is listed."""
    return bool(_BY_HTTP.search(url))


def file_system(url: str) -> tuple[Any, str]:
    """Return fsspec's file system of a URL for this process, and the path there.

    Raises:
        ConfigError: If fsspec, or what it needs for this kind of URL, is not installed.
    """
    try:
        from fsspec.core import url_to_fs  # noqa: PLC0415 - an extra

        system, path = url_to_fs(url)
    except ImportError as error:
        reason = printable(error, max_length=200)
        raise ConfigError(
            f"{without_passwords(url)}: {reason}; pip install 'dyhead-det[remote]' brings "
            "file, memory and https, s3fs and gcsfs bring s3 and gs"
        ) from error
    except ValueError as error:  # a protocol that nobody knows
        shown = f"{without_passwords(url)}: {printable(error, max_length=200)}"
        raise ConfigError(shown) from error
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
            shown = without_passwords(url)
            logger.debug("%s: %s; once more in %d seconds", shown, error, pause)
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
        raise OSError(errno.EIO, reason, without_passwords(url)) from error
