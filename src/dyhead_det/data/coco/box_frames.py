"""Whether `bbox` holds what COCO means: ``[x, y, width, height]`` in pixels of the image.

Files with boxes in 0..1, or with two corners, are common and read without any complaint: every
number is a number. They are recognized by what all of the boxes have in common, never by one.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dyhead_det.data.coco.problems import AnnotationProblems
from dyhead_det.data.coco.records import Flags, Floats, Integers

# How annotations are called in messages, (M,): by id, or by position.
Titles = NDArray[Any]

# How the two kinds of problem begin.
RELATIVE, CORNERS = "bbox must be pixels", "bbox must be [x, y, width, height]"

# Relative coordinates end at 1, and a little behind where boxes reach out of their image.
_GREATEST_RELATIVE = 1.5
_LEAST_IMAGE_SIDE = 16  # below, a box of one pixel is nothing unusual
_MOST, _MANY = 0.5, 0.25  # shares of the boxes

# Two corners taken for a corner and a size reach out of the image wherever the center lies in the
# right or the lower half: three boxes in four.
_NEARLY_ALL = 0.95
_OVERHANG_PIXELS = 1.0
_GREATEST = 2.0**32  # numbers beyond are no coordinates; those boxes are dropped
_ENOUGH_BOXES = 10  # for a judgement without areas
_AREA_TOLERANCE = 0.02


def require_xywh_pixels(
    boxes: Floats, sizes_wh: Integers, areas: Floats, titles: Titles, problems: AnnotationProblems
) -> None:
    """Refuse boxes that are relative or two corners; warn where it is not sure.

    Args:
        boxes: (M, 4) as they are written, NaN where there is none.
        sizes_wh: (M, 2) of their images, 0 where unknown.
        areas: (M,) as they are written, NaN where there is none.
        titles: (M,) how the annotations are called in messages.
        problems: gets what was recognized.
    """
    is_judged = (np.abs(boxes) < _GREATEST).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
    is_judged &= (sizes_wh > 0).all(axis=1)
    if is_judged.any():
        boxes, sizes_wh, titles = boxes[is_judged], sizes_wh[is_judged], titles[is_judged]
        _require_pixels(boxes, sizes_wh, titles, problems)
        _require_xywh(boxes, sizes_wh, areas[is_judged], titles, problems)


def _require_pixels(
    boxes: Floats, sizes_wh: Integers, titles: Titles, problems: AnnotationProblems
) -> None:
    is_relative = (np.abs(boxes) <= _GREATEST_RELATIVE).all(axis=1)
    is_relative &= (sizes_wh >= _LEAST_IMAGE_SIDE).all(axis=1)
    if is_relative.mean() > _MOST:
        problems.refuse(
            f"{RELATIVE}, most of these lie within 0..1 (multiply them by width and height of "
            "their image)",
            titles[is_relative],
        )
    else:
        problems.repair(
            "boxes of a pixel in the upper left corner, kept (relative coordinates among pixels?)",
            titles[is_relative],
        )


def _require_xywh(
    boxes: Floats, sizes_wh: Integers, areas: Floats, titles: Titles, problems: AnnotationProblems
) -> None:
    corner, other = boxes[:, :2], boxes[:, 2:]
    fits_as_xyxy = ((corner >= -_OVERHANG_PIXELS) & (other > corner)).all(axis=1)
    fits_as_xyxy &= (other <= sizes_wh + _OVERHANG_PIXELS).all(axis=1)
    reaches_out = (corner + other > sizes_wh + _OVERHANG_PIXELS).any(axis=1)
    if fits_as_xyxy.mean() < _NEARLY_ALL:
        return
    has_area_of_xyxy = _is_near(areas, np.prod(other - corner, axis=1))
    has_area_of_xywh = _is_near(areas, np.prod(other, axis=1))
    is_proven = (has_area_of_xyxy & ~has_area_of_xywh).mean() > _MOST
    share = 0.0 if has_area_of_xywh.mean() > _MOST else reaches_out.mean()
    kind = (
        f"{CORNERS}, these look like two corners [x1, y1, x2, y2]: "
        f"{fits_as_xyxy.mean():.0%} are corners inside their image, and read as sizes "
        f"{reaches_out.mean():.0%} reach out of it"
    )
    if is_proven or (share > _MOST and len(boxes) >= _ENOUGH_BOXES):
        problems.refuse(f"{kind} (subtract x1, y1 from x2, y2)", titles[fits_as_xyxy])
    elif share > _MANY:
        problems.repair(f"{kind}; taken as sizes all the same", titles[reaches_out])


def _is_near(areas: Floats, expected: Floats) -> Flags:
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(np.abs(areas - expected) <= _AREA_TOLERANCE * expected)
