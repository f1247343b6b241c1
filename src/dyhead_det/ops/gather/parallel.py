"""Many pieces of work on a CPU, each on one thread, instead of many threads on each piece.

PyTorch shares out the work of one operator. Where a computation goes through its data in pieces
that fit the cache, an operator's share is some microseconds, and threads that wait for each other
after every operator lose more than they gain. Here each thread takes whole pieces.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

MIN_NUMBERS = 2**18
"""For less data threads take longer to start than they save."""

Part = TypeVar("Part")
Result = TypeVar("Result")


def in_parallel(
    work: Callable[[Part], Result], parts: Sequence[Part], data: Tensor
) -> Iterator[Result]:
    """Yield ``work(part)`` for all parts, in their order.

    Args:
        work: what to do; it may write where no other part does. It runs in the caller's grad and
            inference mode, without autocast.
        parts: the pieces.
        data: what they are pieces of; on a GPU, or if it is small, one piece follows the other.
    """
    num_threads = torch.get_num_threads()
    is_worth_it = data.device.type == "cpu" and data.numel() >= MIN_NUMBERS and len(parts) > 1
    if num_threads == 1 or not is_worth_it:
        yield from map(work, parts)
        return
    is_inference, has_grad = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def run(part: Part) -> Result:
        with torch.inference_mode(is_inference), torch.set_grad_enabled(has_grad):
            return work(part)

    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        with pool:
            for part in parts:
                if len(pending) > num_threads:  # results that wait take memory
                    yield pending.popleft().result()
                pending.append(pool.submit(run, part))
            while pending:
                yield pending.popleft().result()
    finally:
        # Threads that are yet to start take the number that was set last, in whatever thread.
        torch.set_num_threads(num_threads)


def slices(begin: int, end: int, size: int) -> Iterator[slice]:
    """Cut what lies between two places into pieces of a size, the last one may be smaller."""
    size = max(1, size)
    for first in range(begin, end, size):
        yield slice(first, min(first + size, end))
