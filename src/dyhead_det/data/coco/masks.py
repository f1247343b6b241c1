"""The box around a COCO segmentation: polygons, or a run-length mask of its image.

Run lengths are decoded here and not by pycocotools, whose C code believes what it is given: sizes
of 2**32 kill the process, and a text that ends within a number is read beyond its end.
"""

from itertools import chain

import numpy as np

from dyhead_det.data.coco.records import Floats, Integers, Record, are_numbers

# A letter holds five bits of a number, whether another letter follows, and in the last the sign.
_FIRST_LETTER, _PAYLOAD, _FOLLOWED, _SIGN = 48, 0x1F, 0x20, 0x10
_MOST_LETTERS = 7  # 35 bits: more pixels than an image has


def box_of_segmentation(segmentation: object, size_wh: tuple[int, int]) -> list[float] | None:
    """Return ``[x, y, width, height]`` around polygons or a run-length mask.

    Args:
        segmentation: a JSON value.
        size_wh: of its image; a run-length mask must have the same.

    Returns:
        The box, None where the value is malformed or marks no pixel.
    """
    if isinstance(segmentation, dict):
        return _box_of_run_lengths(segmentation, size_wh)
    if not isinstance(segmentation, list):
        return None
    polygons = [segmentation] if are_numbers(segmentation) else segmentation
    if not all(are_numbers(polygon) and len(polygon) % 2 == 0 for polygon in polygons):
        return None
    try:
        points = np.array(list(chain.from_iterable(polygons)), dtype=np.float64).reshape(-1, 2)
    except OverflowError:  # an integer of hundreds of digits
        return None
    if len(points) < 2 or not np.isfinite(points).all():
        return None
    return _around(points.min(axis=0), points.max(axis=0))


def _box_of_run_lengths(mask: Record, size_wh: tuple[int, int]) -> list[float] | None:
    """Return the box of a mask whose pixels are counted column by column, background first."""
    width, height = size_wh
    if mask.get("size") != [height, width] or width * height < 1:
        return None
    counts = _run_lengths(mask.get("counts"))
    if counts is None or (counts < 0).any() or (counts > width * height).any():
        return None
    if counts.sum(dtype=np.float64) > width * height:
        return None
    ends = np.cumsum(counts)
    starts, stops = ends[0 : len(ends) - 1 : 2], ends[1::2]
    starts, stops = starts[stops > starts], stops[stops > starts]  # of the foreground
    if not len(starts):
        return None
    (first_column, first_row), (last_column, last_row) = (
        np.divmod(pixels, height) for pixels in (starts, stops - 1)
    )
    # A run that goes on in the next column passes the last row and the first.
    is_wrapped = last_column > first_column
    top = 0 if is_wrapped.any() else first_row.min()
    bottom = height - 1 if is_wrapped.any() else last_row.max()
    least = np.array([first_column.min(), top], dtype=np.float64)
    return _around(least, np.array([last_column.max() + 1, bottom + 1], dtype=np.float64))


def _run_lengths(counts: object) -> Integers | None:
    """Return run lengths, (R,), from a list or from COCO's compressed text; None if malformed."""
    if isinstance(counts, str):
        return _decompressed(counts)
    if not isinstance(counts, list) or not set(map(type, counts)) <= {int}:
        return None
    try:
        return np.array(counts, dtype=np.int64)
    except OverflowError:
        return None


def _decompressed(text: str) -> Integers | None:
    """Decode numbers of five bits a letter; from the fourth on, the change to the last but one."""
    if not text.isascii() or not text:
        return None
    letters = np.frombuffer(text.encode("ascii"), dtype=np.uint8).astype(np.int64) - _FIRST_LETTER
    is_last = (letters & _FOLLOWED) == 0
    if letters.min() < 0 or letters.max() > 63 or not is_last[-1]:
        return None
    ends = np.flatnonzero(is_last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    num_letters = ends - starts + 1
    if num_letters.max() > _MOST_LETTERS:
        return None
    which_letter = np.arange(len(letters)) - np.repeat(starts, num_letters)
    numbers = np.add.reduceat((letters & _PAYLOAD) << (5 * which_letter), starts)
    numbers -= np.where(letters[ends] & _SIGN, 1 << (5 * num_letters), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def _around(least: Floats, greatest: Floats) -> list[float]:
    return [*least.tolist(), *(greatest - least).tolist()]
