"""Chunks of work on a CPU, each on one thread, instead of many threads on each chunk.

PyTorch shares out the work of one operator. Where a computation goes through its data in chunks
that fit the cache, an operator's share is some microseconds, and threads that wait for each other
after every operator lose more than they gain. Here each thread takes whole chunks.

The threads are one pool per process, made when it is first needed, anew in a forked child (which
inherits no threads) and when the caller's number of threads has changed.
"""

import ctypes
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache, lru_cache
from typing import TypeVar

import torch
from torch import Tensor

MIN_NUMBERS = 2**18
"""For less data threads take longer to begin than they save."""

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")


def in_parallel(
    work: Callable[[Chunk], Result], chunks: Sequence[Chunk], data: Tensor
) -> Iterator[Result]:
    """Yield ``work(chunk)`` for all chunks, in their order.

    Args:
        work: what to do; it may write where no other chunk does. It runs in the caller's grad and
            inference mode, without autocast.
        chunks: what to do it with.
        data: what they are chunks of; on a GPU, or if it is small, one chunk follows the other in
            the caller, as it does where a thread's operators cannot be kept to that thread.
    """
    num_threads = torch.get_num_threads()
    is_worth_it = data.device.type == "cpu" and data.numel() >= MIN_NUMBERS and len(chunks) > 1
    if num_threads == 1 or not is_worth_it or not _thread_setters():
        yield from map(work, chunks)
        return
    is_inference, has_grad = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def run(chunk: Chunk) -> Result:
        with torch.inference_mode(is_inference), torch.set_grad_enabled(has_grad):
            return work(chunk)

    pool = _pool(num_threads, os.getpid())
    pending: deque[Future[Result]] = deque()
    try:
        for chunk in chunks:
            if len(pending) > num_threads:  # results that wait take memory
                yield pending.popleft().result()
            pending.append(pool.submit(run, chunk))
        while pending:
            yield pending.popleft().result()
    finally:  # after a failure nothing goes on behind the caller's back
        wait([future for future in pending if not future.cancel()])


@lru_cache(maxsize=1)
def _pool(num_threads: int, process_id: int) -> ThreadPoolExecutor:  # noqa: ARG001 - a fork's pool
    return ThreadPoolExecutor(num_threads, "dyhead-det-ops", _use_one_thread)


def _use_one_thread() -> None:
    """Let the operators that the calling thread runs use no other thread."""
    torch.get_num_threads()  # a thread takes PyTorch's number at its first question
    for set_num_threads in _thread_setters():
        set_num_threads(1)


@cache
def _thread_setters() -> list[Callable[[int], None]]:
    """Return what sets the number of OpenMP's, and of MKL's, threads for the calling thread alone.

    `torch.set_num_threads` calls the same two, but also notes the number for every thread that is
    yet to begin. Nothing is returned where PyTorch computes without OpenMP, or where its libraries
    do not show their functions (Windows).
    """
    libraries = ctypes.CDLL(torch._C.__file__)  # with those that it depends on
    if not hasattr(libraries, "omp_set_num_threads"):
        return []
    # In lower case MKL's takes a pointer, for Fortran.
    names = ("omp_set_num_threads", "MKL_Set_Num_Threads_Local")
    setters = [getattr(libraries, name) for name in names if hasattr(libraries, name)]
    for setter in setters:
        setter.argtypes, setter.restype = [ctypes.c_int], None
    return setters


def slices(begin: int, end: int, size: int) -> Iterator[slice]:
    """Cut what lies between two positions into slices of a size; the last may be smaller."""
    size = max(1, size)
    for first in range(begin, end, size):
        yield slice(first, min(first + size, end))
