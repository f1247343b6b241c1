"""The annotations of a COCO file: boxes inside their images, areas, crowds, ids."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dyhead_det.data.coco import records as read
from dyhead_det.data.coco.box_frames import Titles, require_xywh_pixels
from dyhead_det.data.coco.categories import CategoryColumns
from dyhead_det.data.coco.images import ImageColumns
from dyhead_det.data.coco.masks import box_of_segmentation
from dyhead_det.data.coco.problems import AnnotationProblems
from dyhead_det.data.coco.records import Flags, Floats, Integers, Record

# Tools round coordinates; a box that reaches out by less is clipped without a word.
_ROUNDING_PIXELS = 0.5

# Pixels, and units in the last place of float32, that a box must measure: the resizing of the
# detector rounds its two sides independently, and one without a width ends a run.
_LEAST_SIDE, _LEAST_ULPS = 0.01, 8


@dataclass(frozen=True)
class AnnotationColumns:
    """Annotations in the order of the file.

    image_indices: (M,) rows of the image columns; labels: (M,) 0..K-1; boxes_xywh: (M, 4) inside
    their image; areas: (M,) square pixels; is_crowd: (M,); ids: (M,) unique and positive.
    """

    image_indices: Integers
    labels: Integers
    boxes_xywh: Floats
    areas: Floats
    is_crowd: Flags
    ids: Integers

    def select(self, flags: Flags) -> "AnnotationColumns":
        """Return some of the annotations."""
        return AnnotationColumns(
            self.image_indices[flags],
            self.labels[flags],
            self.boxes_xywh[flags],
            self.areas[flags],
            self.is_crowd[flags],
            self.ids[flags],
        )


def read_annotations(
    records: Sequence[Record],
    images: ImageColumns,
    categories: CategoryColumns,
    problems: AnnotationProblems,
    *,
    titles: Sequence[str] | None = None,
) -> AnnotationColumns:
    """Read the annotations: boxes clipped to their images, those without any area left out.

    Args:
        records: the section of the file, M of them.
        images: of the same file.
        categories: of the same file, and which of them each annotation has.
        problems: gets what was repaired and what is refused.
        titles: (M,) what messages call the annotations; None for their ids.
    """
    ids, has_id = read.integers([record.get("id") for record in records])
    names = _titles(records, ids, has_id) if titles is None else np.array(titles, dtype=object)
    image_indices = images.ids.rows_of([record.get("image_id") for record in records])
    if images.is_complete:  # else the image is known, but not its id
        problems.refuse("annotations of an unknown image", names[image_indices < 0])
    labels = categories.labels
    if categories.is_complete:
        problems.refuse("annotations of an unknown category", names[labels < 0])
    is_crowd, is_readable = read.flags([record.get("iscrowd") for record in records])
    problems.refuse("iscrowd is neither 0 nor 1", names[~is_readable])

    sizes_wh = np.concatenate([images.sizes_wh, [[0, 0]]])[image_indices]  # row -1: unknown
    is_placed = (image_indices >= 0) & (labels >= 0)
    written = _read_boxes(records, sizes_wh, names, problems)
    areas = read.floats([record.get("area") for record in records])
    require_xywh_pixels(written, sizes_wh, areas, names, problems)
    boxes_xywh, is_kept = _fit_boxes(written, sizes_wh, names, is_placed, problems)
    is_repeated = is_kept & _is_repeated(written, is_kept, image_indices, labels, is_crowd)
    problems.repair(
        "annotations written twice (same image, category and box), dropped", names[is_repeated]
    )
    is_kept &= ~is_repeated
    areas = _usable_areas(records, areas, boxes_xywh, names, is_kept, problems)
    ids = _usable_ids(ids, has_id, names, problems)
    columns = AnnotationColumns(image_indices, labels, boxes_xywh, areas, is_crowd, ids)
    return columns.select(is_kept)


def _titles(records: Sequence[Record], ids: Integers, has_id: Flags) -> Titles:
    """Return how each annotation is called in messages, (M,): its id, or else its position."""
    titles: Titles = ids.astype(object)
    for row in np.flatnonzero(~has_id).tolist():
        written = records[row].get("id")
        titles[row] = written if isinstance(written, str) else f"position {row}"
    return titles


def _read_boxes(
    records: Sequence[Record], sizes_wh: Integers, titles: Titles, problems: AnnotationProblems
) -> Floats:
    """Return ``[x, y, width, height]`` as written or around the segmentation, NaN without any."""
    boxes_xywh, is_absent, is_malformed = read.boxes([record.get("bbox") for record in records])
    for row in np.flatnonzero(is_absent).tolist():
        segmentation = records[row].get("segmentation")
        if segmentation is None or segmentation == []:
            problems.repair("annotations without bbox and segmentation, dropped", [titles[row]])
            continue
        width, height = sizes_wh[row].tolist()
        box = box_of_segmentation(segmentation, (width, height))
        is_malformed[row] = box is None
        if box is not None:
            problems.repair("boxes taken from the segmentation", [titles[row]])
            boxes_xywh[row] = box
    problems.refuse("malformed bbox or segmentation", titles[is_malformed])
    return boxes_xywh


def _fit_boxes(
    boxes_xywh: Floats,
    sizes_wh: Integers,
    titles: Titles,
    is_placed: Flags,
    problems: AnnotationProblems,
) -> tuple[Floats, Flags]:
    """Clip boxes to their images.

    Args:
        boxes_xywh: (M, 4), NaN where the record has no box.
        sizes_wh: (M, 2) of the image of each box.
        titles: (M,) of the annotations.
        is_placed: (M,) image and category are known.
        problems: gets what was clipped and dropped.

    Returns:
        The boxes, untouched where they lie inside, 0 where dropped, (M, 4); and which of them
        to keep, (M,).
    """
    with np.errstate(over="ignore", invalid="ignore"):
        xyxy = np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1)
        limits = np.tile(sizes_wh, 2).astype(np.float64)
        clipped = xyxy.clip(0, limits)
        overhang = np.abs(clipped - xyxy).max(axis=1, initial=0)
        has_area, is_visible = _has_area(xyxy), _has_area(clipped)

    is_finite = np.isfinite(boxes_xywh).all(axis=1) & np.isfinite(xyxy).all(axis=1)
    is_empty = is_finite & ~has_area
    is_outside = is_finite & has_area & ~is_visible & is_placed
    is_kept = is_finite & has_area & is_visible & is_placed
    is_clipped = is_kept & (overhang > 0)

    has_nan = ~is_finite & ~np.isnan(boxes_xywh).all(axis=1)
    problems.repair("boxes with NaN or infinity, dropped", titles[has_nan])
    problems.repair("boxes of zero or negative size, dropped", titles[is_empty])
    problems.repair("boxes outside their image, dropped", titles[is_outside])
    problems.repair(
        "boxes partly outside their image, clipped", titles[is_kept & (overhang > _ROUNDING_PIXELS)]
    )
    fitted = np.concatenate([clipped[:, :2], clipped[:, 2:] - clipped[:, :2]], axis=1)
    fitted = np.where(is_clipped[:, None], fitted, boxes_xywh)
    return np.where(is_kept[:, None], fitted, 0.0), is_kept


def _has_area(xyxy: Floats) -> Flags:
    """Tell which boxes have an area in float32, which is what the models see."""
    as_seen = xyxy.astype(np.float32)
    sides = as_seen[:, 2:] - as_seen[:, :2]
    resolution = np.spacing(np.abs(as_seen).max(axis=1, initial=0, keepdims=True))
    return np.asarray((sides >= np.maximum(_LEAST_SIDE, _LEAST_ULPS * resolution)).all(axis=1))


def _is_repeated(
    boxes_xywh: Floats, is_kept: Flags, image_indices: Integers, labels: Integers, is_crowd: Flags
) -> Flags:
    """Tell which annotations say the same as one before them, (M,).

    A detector can find one of them only; the others would be missed objects for ever.
    """
    is_repeated = np.zeros(len(labels), dtype=np.bool_)
    rows = np.flatnonzero(is_kept)
    columns = [(boxes_xywh[rows] + 0.0).view(np.int64)]  # -0.0 is 0.0
    columns += [column[rows, None].astype(np.int64) for column in (image_indices, labels, is_crowd)]
    features = np.concatenate(columns, axis=1)  # (kept, 7)
    weights = np.random.default_rng(0).integers(1, 2**62, size=features.shape[1]) | 1
    hashes = features @ weights  # wraps around
    _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    suspects = np.flatnonzero(counts[inverse] > 1)  # nearly always all of them are alike
    _, first = np.unique(features[suspects], axis=0, return_index=True)
    is_repeated[rows[suspects]] = True
    is_repeated[rows[suspects[first]]] = False
    return is_repeated


def _usable_areas(
    records: Sequence[Record],
    areas: Floats,
    boxes_xywh: Floats,
    titles: Titles,
    is_kept: Flags,
    problems: AnnotationProblems,
) -> Floats:
    """Return areas, those of the boxes where none is given, (M,)."""
    is_usable = np.isfinite(areas) & (areas > 0)
    is_unusable = ~is_usable & is_kept
    if is_unusable.any():
        is_given = np.array([record.get("area") is not None for record in records], dtype=np.bool_)
        problems.repair(
            "areas that are no positive number, replaced", titles[is_unusable & is_given]
        )
    return np.where(is_usable, areas, boxes_xywh[:, 2] * boxes_xywh[:, 3])


def _usable_ids(
    ids: Integers, has_id: Flags, titles: Titles, problems: AnnotationProblems
) -> Integers:
    """Renumber unless every annotation has its own id from 1 on.

    pycocotools keeps the id of the ground truth that a detection matched and takes 0 for "none".
    """
    _, first = np.unique(ids, return_index=True)
    is_unusable = ~has_id | (ids < 1)
    is_unusable |= ~np.isin(np.arange(len(ids)), first)
    if not is_unusable.any():
        return ids
    problems.repair("annotation ids missing, repeated or below 1, renumbered", titles[is_unusable])
    return np.arange(1, len(ids) + 1)
