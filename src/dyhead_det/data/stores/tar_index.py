"""Where the files of a tar archive lie in it, read once from its headers and kept.

A tar archive is its files one after the other, each behind a header of 512 bytes. With the position
and size of each, any file can be read without the others, in any order.
"""

import hashlib
import logging
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dyhead_det.data.coco.packed_text import PackedText
from dyhead_det.errors import DatasetError
from dyhead_det.escaping import printable
from dyhead_det.files import cache_folder, written_whole

logger = logging.getLogger(__name__)

_BLOCK = 512
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstd


class Archive(Protocol):
    """A tar archive on a disk or elsewhere; `str` gives its path or URL."""

    def stamp(self) -> str:
        """Return what changes with the content: the size, and when it was written."""
        ...

    def open(self) -> BinaryIO:
        """Open it to read its headers."""
        ...

    def read(self, start: int, size: int) -> bytes:
        """Return a part of it."""
        ...


class TarIndex(NamedTuple):
    """The files of an archive, in its order: (F,) names, first bytes and sizes in bytes."""

    names: PackedText
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]


def read_index(archive: Archive) -> TarIndex:
    """Return where the files of an archive lie, from the cache if it has not changed since.

    Raises:
        DatasetError: If the archive is not there, cut off, compressed or none.
    """
    try:
        stamp = archive.stamp()
        name = hashlib.sha256(str(archive).encode()).hexdigest()[:32]
        cached = cache_folder() / "archives" / f"{name}.npz"
        index = _load(cached, stamp)
        if index is None:
            index = _index(archive)
            _keep(index, cached, stamp)
    except FileNotFoundError as error:
        raise DatasetError(f"no archive at {archive}") from error
    except OSError as error:
        raise DatasetError(f"{archive} cannot be read: {error.strerror or error}") from error
    return index


def _index(archive: Archive) -> TarIndex:
    with archive.open() as file:
        if file.read(8).startswith(_COMPRESSED):
            raise DatasetError(
                f"{archive} is compressed, so that no image in it can be read without all before "
                "it; unpack it to a plain .tar (images are compressed themselves)"
            )
        file.seek(0)
        try:
            members = list(_members(file))
        except (tarfile.TarError, EOFError, ValueError) as error:
            reason = printable(error, max_length=100)
            raise DatasetError(
                f"{archive} is cut off, damaged or no tar archive: {reason}"
            ) from error
    return TarIndex(
        PackedText.pack(name for name, _, _ in members),
        np.array([start for _, start, _ in members], dtype=np.int64),
        np.array([size for _, _, size in members], dtype=np.int64),
    )


def _members(file: BinaryIO) -> Iterator[tuple[str, int, int]]:
    """Yield name, first byte and size of each file.

    Raises:
        tarfile.TarError: If there is something else than headers and files.
    """
    found: dict[str, tuple[int, int]] = {}
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # it would keep them all
            name = member.name.removeprefix("./")
            if member.islnk():  # a second name of a file that came before
                place = found.get(member.linkname.removeprefix("./"))
            elif member.issparse():
                raise tarfile.ReadError(f"{name} is a sparse file")
            else:
                place = (member.offset_data, member.size) if member.isreg() else None
            if place is not None and _is_text(name):
                found[name] = place
                yield name, *place
        # Python takes a damaged header for the end, which is a block of zeros or nothing at all.
        file.seek(tar.offset)
        if file.read(_BLOCK).strip(b"\0"):
            raise tarfile.ReadError(f"no header at byte {tar.offset}")


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # no annotation file can name it
        return False
    return True


def _load(path: Path, stamp: str) -> TarIndex | None:
    """Read a kept index, if it is there, whole, and of this state of the archive."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            if str(kept["stamp"]) != stamp:
                return None
            names = PackedText(kept["text"], kept["ends"])
            return TarIndex(names, kept["starts"], kept["sizes"])
    except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile):
        return None


def _keep(index: TarIndex, path: Path, stamp: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as unfinished, unfinished.open("wb") as file:
            np.savez(
                file,
                stamp=np.array(stamp),
                text=index.names.buffer,
                ends=index.names.offsets,
                starts=index.starts,
                sizes=index.sizes,
            )
    except OSError as error:
        logger.info(
            "%s: not kept (%s); the archive is indexed anew each time", path, error.strerror
        )
