"""Sizes of many images, read from the heads of the files, several at once."""

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from dyhead_det.data.images import image_size
from dyhead_det.errors import DatasetError

# More threads than this only wait for each other, or for the disk.
_MOST_THREADS = 8

SizeOrError = tuple[int, int] | DatasetError


def image_sizes(paths: Sequence[Path]) -> list[SizeOrError]:
    """Return width and height of every picture as shown, or why it has none, in order."""
    pool = ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # here and not in threads, which share the filters
        try:
            sizes = pool.map(_size_or_error, paths)
            bar = tqdm(
                sizes, total=len(paths), desc="sizes", unit="image", leave=False, disable=None
            )
            return list(bar)
        finally:
            pool.shutdown(cancel_futures=True)


def _size_or_error(path: Path) -> SizeOrError:
    try:
        return image_size(path)
    except DatasetError as error:
        return error
