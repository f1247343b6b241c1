"""Many files at once: results in order, and nothing left running."""

import warnings

import pytest

from dyhead_det.data.in_threads import map_in_threads


def test_results_come_in_the_order_of_the_items_without_warnings():
    def square(number):
        warnings.warn("silent", stacklevel=1)
        return number**2

    assert list(map_in_threads(square, range(50), title="squares")) == [n**2 for n in range(50)]


def test_an_error_comes_where_its_item_does():
    results = map_in_threads(lambda n: 1 // n, [1, 0], title="inverses")
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
