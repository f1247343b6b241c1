"""Chunks of work on several threads: order, modes, failures and what is left behind."""

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest
import torch
from torch import Tensor

from dyhead_det.ops.gather import parallel
from dyhead_det.ops.gather.parallel import MIN_NUMBERS, in_parallel, slices

DATA = torch.empty(MIN_NUMBERS)

Result = TypeVar("Result")


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_chunks() -> None:
    def work(chunk: int) -> int:
        time.sleep(0.01 if chunk % 3 == 0 else 0)  # the first of three is the last to finish
        return chunk * chunk

    assert list(in_parallel(work, range(20), DATA)) == [chunk * chunk for chunk in range(20)]


def test_every_chunk_has_one_thread_and_several_run_at_once() -> None:
    together = threading.Barrier(3, timeout=30)

    def work(_: int) -> tuple[int, int]:
        together.wait()  # until three have come
        return torch.get_num_threads(), threading.get_ident()

    results = list(in_parallel(work, range(9), DATA))
    assert {num_threads for num_threads, _ in results} == {1}
    assert threading.get_ident() not in {thread for _, thread in results}


@pytest.mark.parametrize("num_chunks", [0, 1])
def test_a_single_chunk_has_all_threads(num_chunks: int) -> None:
    results = list(in_parallel(lambda _: torch.get_num_threads(), range(num_chunks), DATA))
    assert results == [3] * num_chunks


@pytest.mark.parametrize("data", [DATA[1:], DATA.to("meta")])
def test_little_data_and_other_devices_are_worked_on_in_the_caller(data: Tensor) -> None:
    here = threading.get_ident()
    assert set(in_parallel(lambda _: threading.get_ident(), range(3), data)) == {here}


def test_one_thread_is_that_of_the_caller() -> None:
    here = threading.get_ident()
    torch.set_num_threads(1)
    assert set(in_parallel(lambda _: threading.get_ident(), range(3), DATA)) == {here}


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_chunks_run_in_the_mode_of_the_caller(mode: type) -> None:
    weight = torch.ones(1, requires_grad=True)
    with mode():
        expected = (torch.is_inference_mode_enabled(), (2 * weight).requires_grad)
        results = in_parallel(
            lambda _: (torch.is_inference_mode_enabled(), (2 * weight).requires_grad),
            range(5),
            DATA,
        )
        assert set(results) == {expected}


def test_a_failure_is_raised_and_the_number_of_threads_stays() -> None:
    def work(chunk: int) -> int:
        if chunk == 4:
            raise ValueError("chunk 4")
        return chunk

    with pytest.raises(ValueError, match="chunk 4"):
        list(in_parallel(work, range(100), DATA))
    assert torch.get_num_threads() == 3


def in_new_thread(ask: Callable[[], Result]) -> Result:
    """What a thread of its own gets for an answer."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(ask).result()


def test_threads_that_begin_meanwhile_keep_the_number_of_threads() -> None:
    parallel._pool.cache_clear()  # while the pool's threads begin, too
    numbers = set()
    for _ in in_parallel(lambda _: time.sleep(0.001), range(50), DATA):
        numbers.add(in_new_thread(torch.get_num_threads))
        numbers.add(torch.get_num_threads())
    assert numbers == {3}


def test_a_thread_that_begins_inside_a_worker_keeps_the_number_of_threads() -> None:
    numbers = in_parallel(lambda _: in_new_thread(torch.get_num_threads), range(6), DATA)
    assert set(numbers) == {3}


def test_all_calls_share_one_pool() -> None:
    def workers() -> set[int]:
        together = threading.Barrier(3, timeout=30)  # so that each of the three has a chunk
        return set(
            in_parallel(lambda _: [together.wait(), threading.get_ident()][1], range(3), DATA)
        )

    first = workers()
    assert len(first) == 3
    assert workers() == first


def test_another_number_of_threads_makes_another_pool() -> None:
    torch.set_num_threads(2)
    names = in_parallel(lambda _: [time.sleep(0.005), threading.get_ident()][1], range(12), DATA)
    assert len(set(names)) == 2


def test_a_failure_leaves_nothing_running() -> None:
    running = threading.Semaphore(0)

    def work(chunk: int) -> None:
        if chunk == 0:
            raise ValueError("chunk 0")
        time.sleep(0.05)
        running.release()

    with pytest.raises(ValueError, match="chunk 0"):
        list(in_parallel(work, range(20), DATA))
    finished = running._value
    time.sleep(0.1)
    assert running._value == finished


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_makes_threads_of_its_own() -> None:
    list(in_parallel(lambda _: None, range(9), DATA))
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(
        target=lambda: sender.send(list(in_parallel(lambda chunk: chunk + 1, range(9), DATA)))
    )
    child.start()
    answered = receiver.poll(30)
    child.kill()
    child.join()
    assert answered
    assert receiver.recv() == list(range(1, 10))


def test_without_a_way_to_keep_a_thread_to_itself_the_caller_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parallel, "_thread_setters", list)
    here = threading.get_ident()
    assert set(in_parallel(lambda _: threading.get_ident(), range(3), DATA)) == {here}
    assert torch.get_num_threads() == 3


def test_pytorch_with_openmp_lets_threads_be_kept_to_themselves() -> None:
    if sys.platform != "linux" or not torch.backends.openmp.is_available():
        pytest.skip("needs PyTorch with OpenMP on Linux")
    assert parallel._thread_setters()


def test_no_more_results_wait_than_there_are_threads() -> None:
    started: list[int] = []
    results = in_parallel(started.append, range(1000), DATA)
    next(results)
    time.sleep(0.2)  # time enough for all of them
    assert len(started) <= 5
    assert len(list(results)) == 999


def test_slices_cover_everything_once() -> None:
    assert list(slices(2, 9, 3)) == [slice(2, 5), slice(5, 8), slice(8, 9)]
    assert list(slices(0, 2, 0)) == [slice(0, 1), slice(1, 2)]  # a size of at least one
    assert list(slices(4, 4, 3)) == []
