"""Pieces of work on several threads: order, modes, failures and what is left behind."""

import threading
import time
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from dyhead_det.ops.gather.parallel import MIN_NUMBERS, in_parallel, slices

DATA = torch.empty(MIN_NUMBERS)


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_parts() -> None:
    def work(part: int) -> int:
        time.sleep(0.01 if part % 3 == 0 else 0)  # the first of three is the last to finish
        return part * part

    assert list(in_parallel(work, range(20), DATA)) == [part * part for part in range(20)]


def test_every_part_has_one_thread_and_several_run_at_once() -> None:
    together = threading.Barrier(3, timeout=30)

    def work(_: int) -> tuple[int, int]:
        together.wait()  # until three have come
        return torch.get_num_threads(), threading.get_ident()

    results = list(in_parallel(work, range(9), DATA))
    assert {num_threads for num_threads, _ in results} == {1}
    assert threading.get_ident() not in {thread for _, thread in results}


@pytest.mark.parametrize("num_parts", [0, 1])
def test_a_single_part_has_all_threads(num_parts: int) -> None:
    results = list(in_parallel(lambda _: torch.get_num_threads(), range(num_parts), DATA))
    assert results == [3] * num_parts


@pytest.mark.parametrize("data", [DATA[1:], DATA.to("meta")])
def test_little_data_and_other_devices_are_worked_on_in_the_caller(data: Tensor) -> None:
    here = threading.get_ident()
    assert set(in_parallel(lambda _: threading.get_ident(), range(3), data)) == {here}


def test_one_thread_is_that_of_the_caller() -> None:
    here = threading.get_ident()
    torch.set_num_threads(1)
    assert set(in_parallel(lambda _: threading.get_ident(), range(3), DATA)) == {here}


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_parts_run_in_the_mode_of_the_caller(mode: type) -> None:
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
    def work(part: int) -> int:
        if part == 4:
            raise ValueError("part 4")
        return part

    with pytest.raises(ValueError, match="part 4"):
        list(in_parallel(work, range(100), DATA))
    assert torch.get_num_threads() == 3
    threads_of_new_thread = []
    thread = threading.Thread(target=lambda: threads_of_new_thread.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert threads_of_new_thread == [3]


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
