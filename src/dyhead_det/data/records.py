"""JSON records to numpy columns: at once where the values are regular, one by one where not."""

import math
from collections.abc import Hashable, Sequence
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
    """Read ids, also where a tool wrote them as ``"7"`` or ``7.0``.

    Returns:
        The numbers, (N,), 0 where there is none; and which of them could be read, (N,).
    """
    array = _as_array(values)
    if array is not None and array.dtype == np.int64:
        return array, np.ones(len(values), dtype=np.bool_)
    numbers = [as_integer(value) for value in values]
    is_readable = np.array([number is not None for number in numbers], dtype=np.bool_)
    return np.array([number or 0 for number in numbers], dtype=np.int64), is_readable


def as_integer(value: object) -> int | None:
    """Return the integer that a JSON value stands for, None if it stands for none."""
    if isinstance(value, str) and value.strip().removeprefix("-").isdecimal():
        value = int(value) if len(value) < 20 else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if _INT64.min <= value <= _INT64.max else None


def floats(values: Sequence[object]) -> Floats:
    """Read numbers, (N,); NaN where there is none."""
    array = _as_array(values)
    if array is not None and array.dtype.kind in "if":
        return array.astype(np.float64)
    return np.array([_as_float(value) for value in values], dtype=np.float64)


def flags(values: Sequence[object]) -> tuple[Flags, Flags]:
    """Read ``iscrowd``: 0 or 1, false or true, also as text; absent means no.

    Returns:
        The flags, (N,); and which of them could be read, (N,).
    """
    array = _as_array(values)
    if array is not None and array.dtype.kind in "ib" and set(np.unique(array)) <= {0, 1}:
        return array.astype(np.bool_), np.ones(len(values), dtype=np.bool_)
    read = [_FLAGS.get(value) if isinstance(value, Hashable) else None for value in values]
    is_readable = np.array([flag is not None for flag in read], dtype=np.bool_)
    return np.array([flag or False for flag in read], dtype=np.bool_), is_readable


def boxes(records: Sequence[Record]) -> tuple[Floats, Flags, Flags, Flags]:
    """Read the boxes of annotation records as COCO writes them: ``[x, y, width, height]``.

    Where there is no ``bbox`` it is taken from the ``segmentation``.

    Returns:
        The boxes, (M, 4), NaN where there is none; and three flags (M,): the box is taken from
        the segmentation, the record has neither, what it has is malformed.
    """
    count = len(records)
    written = [record.get("bbox") for record in records]
    is_from_segmentation, is_absent, is_malformed = np.zeros((3, count), dtype=np.bool_)
    array = _as_array(written)
    if array is not None and array.dtype.kind in "if" and array.shape == (count, 4):
        return array.astype(np.float64), is_from_segmentation, is_absent, is_malformed

    boxes_xywh = np.full((count, 4), np.nan)
    for row, box in enumerate(written):
        if box is None or box == []:
            segmentation = records[row].get("segmentation")
            is_absent[row] = segmentation is None or segmentation == []
            is_from_segmentation[row] = not is_absent[row]
            box = [] if is_absent[row] else _box_of_segmentation(segmentation)
        if _are_numbers(box) and len(box) == 4:
            boxes_xywh[row] = [_as_float(value) for value in box]
        else:
            is_malformed[row] = not is_absent[row]
    return boxes_xywh, is_from_segmentation, is_absent, is_malformed


def _as_array(values: Sequence[object]) -> NDArray[Any] | None:
    try:
        return np.array(values)
    except (ValueError, OverflowError):  # rows of different lengths
        return None


def _as_float(value: object) -> float:
    if not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return math.nan


def _are_numbers(values: object) -> TypeGuard[list[float]]:
    return isinstance(values, list) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values
    )


def _box_of_segmentation(segmentation: object) -> list[float] | None:
    """Return ``[x, y, width, height]`` around polygons or a run-length mask, None if malformed."""
    if isinstance(segmentation, dict):
        return _box_of_run_lengths(segmentation)
    if not isinstance(segmentation, list):
        return None
    polygons = [segmentation] if _are_numbers(segmentation) else segmentation
    if not all(_are_numbers(polygon) and len(polygon) % 2 == 0 for polygon in polygons):
        return None
    coordinates = [_as_float(value) for polygon in polygons for value in polygon]
    if len(coordinates) < 4:
        return None
    xs, ys = coordinates[0::2], coordinates[1::2]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def _box_of_run_lengths(mask: Record) -> list[float] | None:
    from pycocotools import mask as run_lengths  # noqa: PLC0415 - few data sets need it

    size_hw, counts = mask.get("size"), mask.get("counts")
    # pycocotools divides by the height without looking.
    if not _are_numbers(size_hw) or len(size_hw) != 2 or min(size_hw) < 1:
        return None
    try:
        if isinstance(counts, list):
            mask = run_lengths.frPyObjects(mask, *size_hw)
        elif not isinstance(counts, str):
            return None
        return [float(value) for value in run_lengths.toBbox(mask)]
    except (TypeError, ValueError, OverflowError):
        return None
