"""What a place of image files is to all others, and a file in it that is none of the disk."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from dyhead_det.files import open_file

# Where images lie: a folder, a tar archive or a pattern of several; a URL, which is text.
ImageLocation = Path | str


class ImageStore(Protocol):
    """Image files by name, with forward slashes; `str` gives the place for messages.

    Stores are copied to worker processes and read in threads: they hold no open file.
    """

    @property
    def location(self) -> ImageLocation:
        """Return what `open_store` took."""
        ...

    def __contains__(self, name: str) -> bool:
        """Return whether there is such a file."""
        ...

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return the names, of many, that no file has.

        Raises:
            DatasetError: If the place is not there, or a name stands for several files.
        """
        ...

    def spelled_as_there(self, name: str) -> str:
        """Return the name in the Unicode form of the file, itself where there is none."""
        ...

    def in_another_case(self, name: str) -> str | None:
        """Return the name of a file that differs in nothing but upper and lower case."""
        ...

    def file(self, name: str) -> "ImageFile":
        """Return a file, which need not be there.

        Raises:
            DatasetError: If the name stands for several files.
        """
        ...


class FileReader(Protocol):
    """A store whose files are none of the disk."""

    def read(self, name: str) -> bytes:
        """Return all bytes of a file.

        Raises:
            OSError: If there is none, or it cannot be read.
        """
        ...

    def title(self, name: str) -> str:
        """Return what messages call a file."""
        ...


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file inside an archive or behind a URL.

    Attributes:
        store: reads it.
        name: of the file there.
        content: its bytes, where they are held.
    """

    store: FileReader
    name: str
    content: bytes | None = None

    def __str__(self) -> str:
        return self.store.title(self.name)

    def open(self) -> BinaryIO:
        """Open it; errors as `FileReader.read`."""
        return io.BytesIO(self.store.read(self.name) if self.content is None else self.content)


ImageFile = Path | StoredFile


def open_image(file: ImageFile) -> BinaryIO:
    """Open an image file; errors as `open_file` or `FileReader.read`."""
    return open_file(file) if isinstance(file, Path) else file.open()
