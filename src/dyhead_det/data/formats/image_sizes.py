"""Sizes of many images, read from the heads of the files, several at once."""

from collections.abc import Sequence
from pathlib import Path

from dyhead_det.data.images import image_size
from dyhead_det.data.in_threads import map_in_threads
from dyhead_det.errors import DatasetError

SizeOrError = tuple[int, int] | DatasetError


def image_sizes(paths: Sequence[Path]) -> list[SizeOrError]:
    """Return width and height of every picture as shown, or why it has none, in order."""
    return list(map_in_threads(_size_or_error, paths, title="sizes"))


def _size_or_error(path: Path) -> SizeOrError:
    try:
        return image_size(path)
    except DatasetError as error:
        return error
