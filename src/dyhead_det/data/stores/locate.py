"""From what a configuration or an option names to the store of images there."""

import glob
import re
from collections.abc import Iterator
from pathlib import Path

from dyhead_det.data.stores.archives import LocalArchive, TarArchives
from dyhead_det.data.stores.folder import ImageFolder
from dyhead_det.data.stores.remote import RemoteArchive, RemoteFolder, file_system, is_http
from dyhead_det.data.stores.store import ImageLocation, ImageStore
from dyhead_det.data.stores.tar_index import Archive
from dyhead_det.errors import DatasetError

_TAR = re.compile(r"\.(tar|tgz|tbz2?|txz)($|[.*?\[{][^/]*$)", re.IGNORECASE)
_NUMBERS = re.compile(r"\{(\d+)\.\.(\d+)\}")
_CHOICES = re.compile(r"\{([^{}]*,[^{}]*)\}")
_MOST_ARCHIVES = 10**6


def image_location(text: str, root: Path | None = None) -> ImageLocation:
    """Return where images lie by what a person writes: a URL, or a path below a folder."""
    if "://" in text:
        return text
    return Path(text) if root is None else root / text


def location_text(location: ImageLocation) -> str:
    """Return what a configuration in any folder calls a location."""
    return location if isinstance(location, str) else str(location.absolute())


def folder_path(location: ImageLocation) -> Path | None:
    """Return the folder of the disk that a location is, None for archives and URLs."""
    return location if isinstance(location, Path) and not _is_archive(location) else None


def open_store(location: ImageLocation) -> ImageStore:
    """Return the images at a location.

    Args:
        location: a folder; a tar archive or a pattern of several, `images-*.tar` or
            `images-{000..015}.tar`; a URL of either.

    Raises:
        DatasetError: If an archive is not there or cannot be used.
        ConfigError: If a URL needs what is not installed.
    """
    if isinstance(location, str):
        # The query of an address is not its name; elsewhere a question mark is part of a pattern.
        name = location.partition("?")[0] if is_http(location) else location
        if not _TAR.search(name):
            return RemoteFolder(location)
        return TarArchives(location, _remote_archives(location))
    if _is_archive(location):
        return TarArchives(location, _local_archives(location))
    return ImageFolder(location)


def _is_archive(path: Path) -> bool:
    return bool(_TAR.search(path.name)) and not path.is_dir()


def _local_archives(path: Path) -> list[Archive]:
    if path.exists():  # whatever is in its name
        return [LocalArchive(path)]
    # A folder that is there is meant, whatever is in its name.
    is_there = path.parent.is_dir()
    folder, pattern = (path.parent, path.name) if is_there else (Path(), str(path))
    found = (
        sorted(glob.glob(one, root_dir=folder)) if glob.has_magic(one) else [one]  # noqa: PTH207
        for one in expand(pattern)
    )
    return [LocalArchive(folder / one) for one in _required(found, str(path))]


def _remote_archives(url: str) -> list[Archive]:
    return [RemoteArchive(one) for one in _required(map(_matches, expand(url)), url)]


def _matches(url: str) -> list[str]:
    if not glob.has_magic(url.partition("://")[2]):
        return [url]
    system, pattern = file_system(url)
    try:
        return [str(system.unstrip_protocol(path)) for path in sorted(system.glob(pattern))]
    except OSError as error:
        raise DatasetError(f"{url} cannot be listed: {error.strerror or error}") from error


def _required(found: Iterator[list[str]], pattern: str) -> list[str]:
    archives = list(dict.fromkeys(one for several in found for one in several))
    if not archives:
        raise DatasetError(f"no archive at {pattern}")
    return archives


def expand(pattern: str) -> list[str]:
    """Return what braces stand for, as in a shell: `{00..15}` and `{a,b}`; the rest stays.

    Raises:
        DatasetError: If that are more than a million.
    """
    expanded = [pattern]
    while match := _NUMBERS.search(expanded[0]) or _CHOICES.search(expanded[0]):
        if ".." in match[0] and "," not in match[0]:
            first, last = match.groups()
            if int(last) - int(first) >= _MOST_ARCHIVES:
                raise DatasetError(f"{pattern} are more than {_MOST_ARCHIVES} archives")
            words = [f"{n:0{len(first)}}" for n in range(int(first), int(last) + 1)]
        else:
            words = match[1].split(",")
        if not words or len(words) * len(expanded) > _MOST_ARCHIVES:
            raise DatasetError(f"{pattern} is no pattern of archives: {match[0]}")
        expanded = [one.replace(match[0], word, 1) for one in expanded for word in words]
    return expanded
