"""Work of several threads that keeps its order: reading and drawing beside the detector."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def thread_pool(num_threads: int) -> Iterator[ThreadPoolExecutor | None]:
    """Give a pool of threads, None for 0; what has not begun when the block ends never does."""
    if not num_threads:
        yield None
        return
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="predict")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def map_ahead(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    pool: ThreadPoolExecutor | None,
    *,
    num_ahead: int,
) -> Iterator[Result]:
    """Apply a function to items in a pool, and yield the results in the order of the items.

    Args:
        function: May run in several threads at once.
        items: Taken as they are needed: memory does not grow with their number.
        pool: None to do it here, one item after the other.
        num_ahead: Items that are taken before the first of them is waited for.
    """
    if pool is None:
        yield from map(function, items)
        return
    pending: deque[Future[Result]] = deque()
    for item in items:
        pending.append(pool.submit(function, item))
        while pending and (len(pending) > num_ahead or pending[0].done()):
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of that many items; the last may have fewer."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
