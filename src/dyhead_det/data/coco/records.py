"""JSON values to numpy columns: at once where all are of one type, one by one where not.

A stranger's file may hold anything anywhere. Nothing here asks numpy what a list of values is:
it would take lists of one length for a matrix, true for 1, and a text for as many bytes in every
row as the longest one has.
"""

import math
from collections.abc import Hashable, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

Record = dict[str, Any]
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_INT64 = np.iinfo(np.int64)
_FLAGS: dict[Hashable, bool] = {None: False, 0: False, 1: True, "": False, "0": False, "1": True}


def integers(values: Sequence[object]) -> tuple[Integers, Flags]:
    """Read whole numbers, also where a tool wrote them as ``"7"`` or ``7.0``.

    Returns:
        The numbers, (N,), 0 where there is none; and which of them could be read, (N,).
    """
    if set(map(type, values)) == {int}:
        with suppress(OverflowError):  # then they are read one by one
            return np.array(values, dtype=np.int64), np.ones(len(values), dtype=np.bool_)
    numbers = [as_integer(value) for value in values]
    is_readable = np.array([number is not None for number in numbers], dtype=np.bool_)
    return np.array([number or 0 for number in numbers], dtype=np.int64), is_readable


def as_integer(value: object) -> int | None:
    """Return the integer that a JSON value stands for, None if it stands for none."""
    if isinstance(value, str) and len(value) < 40 and value.strip().removeprefix("-").isdecimal():
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if _INT64.min <= value <= _INT64.max else None


def floats(values: Sequence[object]) -> Floats:
    """Read numbers, (N,); NaN where there is none."""
    at_once = _floats_at_once(values)
    return np.array([_as_float(value) for value in values]) if at_once is None else at_once


def flags(values: Sequence[object]) -> tuple[Flags, Flags]:
    """Read ``iscrowd``: 0 or 1, false or true, also as text; absent means no.

    Returns:
        The flags, (N,); and which of them could be read, (N,).
    """
    if set(map(type, values)) <= {int, bool} and set(values) <= {0, 1}:
        return np.array(values, dtype=np.bool_), np.ones(len(values), dtype=np.bool_)
    read = [_FLAGS.get(value) if isinstance(value, Hashable) else None for value in values]
    is_readable = np.array([flag is not None for flag in read], dtype=np.bool_)
    return np.array([flag or False for flag in read], dtype=np.bool_), is_readable


def boxes(values: Sequence[object]) -> tuple[Floats, Flags, Flags]:
    """Read boxes of four numbers.

    Returns:
        The boxes, (N, 4), NaN where there is none; and two flags (N,): there is nothing, and what
        there is cannot be read.
    """
    is_absent, is_malformed = np.zeros((2, len(values)), dtype=np.bool_)
    if set(map(type, values)) == {list} and set(map(len, values)) == {4}:  # type: ignore[arg-type]
        at_once = _floats_at_once(list(chain.from_iterable(values)))  # type: ignore[arg-type]
        if at_once is not None:
            return at_once.reshape(-1, 4), is_absent, is_malformed
    read = np.full((len(values), 4), np.nan)
    for row, value in enumerate(values):
        if value is None or value == []:
            is_absent[row] = True
        elif are_numbers(value) and len(value) == 4:
            read[row] = [_as_float(number) for number in value]
        else:
            is_malformed[row] = True
    return read, is_absent, is_malformed


def are_numbers(values: object) -> TypeGuard[list[int | float]]:
    """Return whether a JSON value is a list of nothing but numbers."""
    return isinstance(values, list) and set(map(type, values)) <= {int, float}


def _floats_at_once(values: Sequence[object]) -> Floats | None:
    if not set(map(type, values)) <= {int, float}:
        return None
    try:
        return np.array(values, dtype=np.float64)
    except OverflowError:  # an integer of hundreds of digits
        return None


def _as_float(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan
