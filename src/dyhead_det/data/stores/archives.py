"""Images inside tar archives, read in any order by an index of where each lies."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dyhead_det.data.coco.packed_text import PackedText
from dyhead_det.data.in_threads import map_in_threads
from dyhead_det.data.stores.file_names import FileNames
from dyhead_det.data.stores.store import ImageLocation, StoredFile
from dyhead_det.data.stores.tar_index import Archive, read_index
from dyhead_det.errors import DatasetError
from dyhead_det.escaping import without_passwords
from dyhead_det.files import open_file


@dataclass(frozen=True, slots=True)
class LocalArchive:
    """An archive on a disk.

    It is opened for each image, which takes microseconds of an image's milliseconds: nothing is
    shared between processes, and thousands of archives need no thousands of open files.
    """

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def stamp(self) -> str:
        """Return size and time of the last change."""
        status = self.path.stat()
        return f"{status.st_size} {status.st_mtime_ns}"

    def open(self) -> BinaryIO:
        """Open it."""
        return open_file(self.path)

    def read(self, start: int, size: int) -> bytes:
        """Return a part of it."""
        with self.open() as file:
            file.seek(start)
            return file.read(size)


class TarArchives:
    """An `ImageStore`: the files in one or several tar archives, under their names there.

    Where all lie in one folder inside, a name may leave that out.

    Args:
        location: of all of them together.
        archives: in any order.

    Raises:
        DatasetError: If one is not there, cut off, compressed or no tar archive.
    """

    def __init__(self, location: ImageLocation, archives: Sequence[Archive]) -> None:
        self.location = location
        self._archives = archives
        indices = list(map_in_threads(read_index, archives, title="index archives", unit="archive"))
        names = list(chain.from_iterable(index.names for index in indices))
        order = np.array(sorted(range(len(names)), key=names.__getitem__), dtype=np.int64)
        counts = [len(index.names) for index in indices]
        self._names = FileNames(PackedText.pack(names[row] for row in order))
        self._archive_rows = np.repeat(np.arange(len(indices), dtype=np.int32), counts)[order]
        self._starts = np.concatenate([index.starts for index in indices])[order]
        self._sizes = np.concatenate([index.sizes for index in indices])[order]

    def __str__(self) -> str:
        return without_passwords(str(self.location))

    def __contains__(self, name: str) -> bool:
        return bool(self._names.rows(name))

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return the names, of many, that no file has.

        Raises:
            DatasetError: If several files are called by one of them.
        """
        wanted = list(names)
        doubles = self._names.doubles()
        for name in wanted if doubles else ():
            self._row(name)
        return self._names.missing(wanted)

    def spelled_as_there(self, name: str) -> str:
        """Return the name in the Unicode form of the file, itself where there is none."""
        return self._names.spelled_as_there(name)

    def in_another_case(self, name: str) -> str | None:
        """Return the name of a file that differs in nothing but upper and lower case."""
        return self._names.in_another_case(name)

    def file(self, name: str) -> StoredFile:
        """Return a file, which need not be there.

        Raises:
            DatasetError: If several files are called so.
        """
        self._row(name)
        return StoredFile(self, name)

    def title(self, name: str) -> str:
        """Return archive and name of a file."""
        rows = self._names.rows(name)
        return f"{self._archive_of(rows[0]) if rows else self}: {name}"

    def read(self, name: str) -> bytes:
        """Return all bytes of a file.

        Raises:
            OSError: If there is none, or the archive cannot be read or has become shorter.
        """
        row = self._row(name)
        if row is None:
            raise FileNotFoundError(self.title(name))
        size = int(self._sizes[row])
        content = self._archive_of(row).read(int(self._starts[row]), size)
        if len(content) < size:
            raise EOFError("the archive has become shorter since it was indexed")
        return content

    def _row(self, name: str) -> int | None:
        rows = self._names.rows(name)
        if len(rows) > 1:
            places = dict.fromkeys(str(self._archive_of(row)) for row in rows)
            raise DatasetError(
                f"{' and '.join(places)} {'have' if len(places) > 1 else 'has'} several files "
                f"called {name}; leave one in"
            )
        return rows[0] if rows else None

    def _archive_of(self, row: int) -> Archive:
        return self._archives[int(self._archive_rows[row])]
