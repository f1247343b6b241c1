"""The folder of image files, where a name may be spelled otherwise than in the annotations.

Unicode writes some letters in two forms, composed (NFC) and decomposed (NFD): macOS and archives
made there rename files from one to the other. Such files are found. Letters in another case are
another name on most file systems; there the name that was perhaps meant is reported.
"""

import os
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from dyhead_det.errors import DatasetError

Fold = Callable[[str], str]


class ImageFolder:
    """An `ImageStore`: the files below a folder, each part of which is listed once if at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listed = cache(self._list)

    def __reduce__(self) -> tuple[type["ImageFolder"], tuple[Path]]:
        return ImageFolder, (self.path,)  # without what was listed

    @property
    def location(self) -> Path:
        """The folder."""
        return self.path

    def __str__(self) -> str:
        return str(self.path)

    def __contains__(self, name: str) -> bool:
        # Not Path.exists, which raises on names that no file can have.
        return os.path.exists(self.path / name)  # noqa: PTH110

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return the names that no file has.

        Raises:
            DatasetError: If there is no folder.
        """
        if not self.path.is_dir():
            is_other = self.path.exists()
            raise DatasetError(
                f"{self.path} is neither a folder of images nor a tar archive"
                if is_other
                else f"no images folder at {self.path}"
            )
        return [name for name in names if name not in self]

    def file(self, name: str) -> Path:
        """Return where a file lies."""
        return self.path / name

    def spelled_as_there(self, name: str) -> str:
        """Return the name in the Unicode form that the disk has, itself where there is no file."""
        if name.isascii() or name in self:
            return name
        return self._find(name, composed) or name

    def in_another_case(self, name: str) -> str | None:
        """Return the name of a file that differs in nothing but upper and lower case."""
        found = self._find(name, caseless)
        return None if found == name else found  # itself where it is a link to nothing

    def _find(self, name: str, fold: Fold) -> str | None:
        found = ""
        for part in name.split("/"):
            entry = part if part in ("", ".") else self._listed(found, fold).get(fold(part))
            if entry is None:
                return None
            found = f"{found}/{entry}" if found else entry
        return found

    def _list(self, folder: str, fold: Fold) -> dict[str, str]:
        try:
            entries = sorted(os.listdir(self.path / folder))  # noqa: PTH208 - names, not paths
        except OSError:  # no folder
            return {}
        return {fold(entry): entry for entry in reversed(entries)}


def composed(text: str) -> str:
    """Return text in Unicode's composed form."""
    return unicodedata.normalize("NFC", text)


def caseless(text: str) -> str:
    """Return text that is the same in upper and lower case."""
    return composed(text).casefold()
