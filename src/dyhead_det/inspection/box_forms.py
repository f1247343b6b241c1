"""Boxes as fractions or corners, written as COCO means them: x, y, width, height in pixels."""

from pathlib import Path

import numpy as np

from dyhead_det.data.coco import records as read
from dyhead_det.data.coco.box_frames import RELATIVE
from dyhead_det.data.coco.file import CocoRecords
from dyhead_det.data.coco.images import read_images
from dyhead_det.data.coco.problems import AnnotationProblems
from dyhead_det.data.coco.records import Floats, Record
from dyhead_det.data.stores.locate import open_store
from dyhead_det.data.stores.store import ImageLocation

# Of the boxes that must lie inside their image for a form to be the one that is meant.
_NEARLY_ALL = 0.98
_TOLERANCE = 1e-3  # shares of an image, which many tools round


def as_xywh_pixels(records: CocoRecords, images: ImageLocation, frame: str) -> list[Record]:
    """Return the annotations of a file whose boxes were recognized as relative or as corners.

    Args:
        records: of the file.
        images: where its images lie, for sizes that it does not tell.
        frame: `RELATIVE` or `CORNERS`.

    Returns:
        The annotations, with boxes as they should be; as they are where it is not clear what the
        fractions mean.
    """
    written, is_absent, is_malformed = read.boxes([r.get("bbox") for r in records.annotations])
    columns = read_images(records.images, AnnotationProblems(Path()), open_store(images))
    rows = columns.ids.rows_of([record.get("image_id") for record in records.annotations])
    sizes_wh = np.concatenate([columns.sizes_wh, [[0, 0]]])[rows]
    is_known = ~is_absent & ~is_malformed & (sizes_wh > 0).all(axis=1)
    boxes = written if frame != RELATIVE else _from_fractions(written, is_known)
    if boxes is None:
        return records.annotations
    if frame == RELATIVE:
        boxes = boxes * np.tile(sizes_wh, 2)
    boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    # The area of a fraction is one, too; that of a box takes its place.
    without_area = {"area": None} if frame == RELATIVE else {}
    return [
        {**record, **without_area, "bbox": box} if known else record
        for record, box, known in zip(
            records.annotations, boxes.tolist(), is_known.tolist(), strict=True
        )
    ]


def _from_fractions(boxes: Floats, is_known: read.Flags) -> Floats | None:
    """Return fractions of an image as corners, (M, 4), by the form that lets boxes lie inside it.

    COCO's own comes first, then YOLO's, whose first numbers are the center.
    """
    first, second = boxes[:, :2], boxes[:, 2:]
    forms = (
        (first, first + second),
        (first - second / 2, first + second / 2),
        (first, second),
    )
    for starts, ends in forms:
        is_inside = (starts >= -_TOLERANCE) & (ends <= 1 + _TOLERANCE) & (ends > starts)
        if is_inside[is_known].all(axis=1).mean() >= _NEARLY_ALL:
            return np.concatenate([starts, ends], axis=1)
    return None
