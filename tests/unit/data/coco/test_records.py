"""JSON values become numbers only where they are numbers, and cost no more than they hold."""

import tracemalloc

import numpy as np
import pytest

from dyhead_det.data.coco import records

JUNK = [None, True, False, "x", "", [], [1], [[1]], {}, {"a": 1}, 2**63, 10**400, 1.5, "\ud800"]


@pytest.mark.parametrize("value", JUNK)
@pytest.mark.parametrize("count", [1, 3])
def test_a_column_of_anything_but_whole_numbers_is_unreadable(value, count):
    numbers, is_readable = records.integers([value] * count)
    assert numbers.tolist() == [0] * count
    assert numbers.dtype == np.int64
    assert not is_readable.any()


def test_a_truth_value_among_numbers_is_no_number():
    numbers, is_readable = records.integers([7, True, 9])
    assert numbers.tolist() == [7, 0, 9]
    assert is_readable.tolist() == [True, False, True]
    assert np.isnan(records.floats([1.5, True, 2])).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("written", "number"),
    [("7", 7), (" -3 ", -3), (7.0, 7), (-(2**63), -(2**63)), ("9223372036854775807", 2**63 - 1)],
)
def test_whole_numbers_are_read_in_every_spelling(written, number):
    assert records.integers([written])[0].tolist() == [number]


@pytest.mark.parametrize("value", [*JUNK[:10], 10**400, float("nan")])
def test_what_is_no_number_is_nan_where_numbers_are_wanted(value):
    assert np.isnan(records.floats([value, value])).all()


@pytest.mark.parametrize("value", [[1, 2, 3], [[1, 2, 3, 4]], "1234", {"x": 1}, 5, [1, 2, 3, True]])
def test_a_column_of_malformed_boxes_of_one_length_is_malformed(value):
    boxes, is_absent, is_malformed = records.boxes([value] * 4)
    assert boxes.shape == (4, 4)
    assert not is_absent.any()
    assert is_malformed.all()


def test_flags_of_any_value_are_read_or_not():
    flags, is_readable = records.flags([*JUNK, 0, 1, 1.0, "1", 2])
    assert flags.dtype == is_readable.dtype == np.bool_
    assert is_readable[-5:].tolist() == [True, True, True, True, False]
    assert records.flags([1, 2])[1].tolist() == [True, False]


def test_one_long_text_costs_its_own_length_only():
    values = ["x" * 100_000, *[1] * 20_000]  # 8 GB as a column of texts of one length
    tracemalloc.start()
    for read in (records.integers, records.floats, records.flags, records.boxes):
        read(values)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6
