"""The folder of image files, where a name may be spelled otherwise than in the annotations.

Unicode writes some letters in two forms, composed (NFC) and decomposed (NFD): macOS and archives
made there rename files from one to the other. Such files are found. Letters in another case are
another name on most file systems; there the name that was perhaps meant is reported.
"""

import os
import unicodedata
from collections.abc import Callable
from functools import cache
from pathlib import Path

Fold = Callable[[str], str]


class ImageFolder:
    """Finds files below a folder by names with forward slashes; the folder is listed once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listed = cache(self._list)

    def __contains__(self, name: str) -> bool:
        # Not Path.exists, which raises on names that no file can have.
        return os.path.exists(self.path / name)  # noqa: PTH110

    def spelled_as_on_disk(self, name: str) -> str:
        """Return the name in the Unicode form that the disk has, itself where there is no file."""
        if name.isascii() or name in self:
            return name
        return self._find(name, composed) or name

    def in_another_case(self, name: str) -> str | None:
        """Return the name of a file that differs in nothing but upper and lower case."""
        found = self._find(name, _caseless)
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


def _caseless(text: str) -> str:
    return composed(text).casefold()
