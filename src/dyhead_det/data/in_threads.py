"""A function of many files, several at once, with a progress bar."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

# More threads than this only wait for each other, or for the disk.
_MOST_THREADS = 8

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], *, title: str, unit: str = "image"
) -> Iterator[Result]:
    """Yield the results in the order of the items; warnings are silent meanwhile.

    Args:
        function: May run in several threads at once.
        items: Files, or what stands for them.
        title: Of the progress bar.
        unit: What it counts.
    """
    pool = ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # here and not in threads, which share the filters
            yield from tqdm(
                pool.map(function, items),
                total=len(items),
                desc=title,
                unit=unit,
                leave=False,
                disable=None,
            )
    finally:
        pool.shutdown(cancel_futures=True)
