"""Threads that keep the order of items, take few of them ahead, and hand on errors."""

import itertools
import threading

import pytest

from dyhead_det.prediction.thread_pool import batched, map_ahead, thread_pool


@pytest.mark.parametrize("num_threads", [0, 1, 3])
def test_results_come_in_the_order_of_the_items(num_threads):
    first_may_end = threading.Event()

    def wait_if_first(number):
        if num_threads > 1:
            first_may_end.wait() if number == 0 else first_may_end.set()
        return number * number

    with thread_pool(num_threads) as pool:
        results = list(map_ahead(wait_if_first, range(20), pool, num_ahead=4))
    assert results == [number * number for number in range(20)]


@pytest.mark.parametrize("num_threads", [0, 2])
def test_few_items_are_taken_ahead(num_threads):
    numbers = itertools.count()
    with thread_pool(num_threads) as pool:
        results = map_ahead(lambda number: number, numbers, pool, num_ahead=5)
        assert [next(results) for _ in range(100)] == list(range(100))
        assert next(numbers) <= 100 + 6


def test_an_error_reaches_who_asks_and_nothing_begins_after_the_block():
    begun = []

    def fail(number):
        begun.append(number)
        raise ValueError(number)

    with pytest.raises(ValueError, match="0"), thread_pool(1) as pool:
        next(map_ahead(fail, range(1000), pool, num_ahead=500))
    assert len(begun) < 1000


def test_batches_are_full_but_the_last():
    assert list(batched("abcde", 2)) == [["a", "b"], ["c", "d"], ["e"]]
