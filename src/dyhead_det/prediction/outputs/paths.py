"""Where the files of single images go: never over each other, never over an input."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from dyhead_det.prediction.sources.files import ImageSource

# Bytes of a file's name that most file systems take.
_MAX_NAME = 255


def output_paths(
    images: Sequence[ImageSource], folder: Path, suffix_of: Callable[[str], str]
) -> list[Path]:
    """Choose a file for each image: below a folder, under the image's own relative path.

    No two images share a path, not even on a file system that ignores case, and none is the path
    of an input: the later one gets a number.

    Args:
        images: the inputs.
        folder: of the files.
        suffix_of: from the suffix of an image in small letters to that of its file.
    """
    folder = Path(os.path.realpath(folder))  # a link in a circle is no folder, and no error here
    taken = {
        str(image.path.resolve()).casefold() for image in images if isinstance(image.path, Path)
    }
    numbers: Counter[str] = Counter()  # where to go on counting, by the path that was wanted
    paths = []
    for image in images:
        suffix = suffix_of(image.relative.suffix.lower())
        parent, stem = folder / image.relative.parent, image.relative.stem
        wanted = str(parent / f"{stem}{suffix}").casefold()
        while True:
            numbers[wanted] += 1
            end = suffix if numbers[wanted] == 1 else f"-{numbers[wanted]}{suffix}"
            path = parent / (_shortened(stem, _MAX_NAME - len(end)) + end)
            if str(path).casefold() not in taken:
                break
        taken.add(str(path).casefold())
        paths.append(path)
    return paths


def _shortened(stem: str, num_bytes: int) -> str:
    """Cut a name that has more bytes than that, between two characters."""
    encoded = os.fsencode(stem)
    return stem if len(encoded) <= num_bytes else encoded[:num_bytes].decode(errors="ignore")


def picture_paths(images: Sequence[ImageSource], folder: Path) -> list[Path]:
    """Choose where to draw each image: JPEG stays JPEG, all else becomes PNG."""
    return output_paths(
        images, folder, lambda suffix: ".jpg" if suffix in (".jpg", ".jpeg") else ".png"
    )
