"""The three sections of a COCO file (categories, images, annotations) as checked columns.

What is repaired and what is refused is told in `coco`; here it is noted in `AnnotationProblems`.
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.data import records as read
from dyhead_det.data.problems import AnnotationProblems
from dyhead_det.data.records import Flags, Floats, Integers, Record

# Tools round coordinates; a box that reaches out by less is clipped without a word.
_ROUNDING_PIXELS = 0.5

# Empty, absolute, with a drive, a folder, with a part "..", or nothing that a file can be called.
_NO_FILE_BELOW = re.compile(r"^$|^/|^[A-Za-z]:|/$|(^|/)\.\.(/|$)|\0")


@dataclass(frozen=True)
class ImageColumns:
    """Images in the order of the file.

    ids: (N,); file_names: (N,) text; sizes_wh: (N, 2) width and height in pixels.
    """

    ids: Integers
    file_names: NDArray[np.str_]
    sizes_wh: Integers


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


def read_categories(records: Sequence[object], problems: AnnotationProblems) -> CategoryMap:
    """Read the categories in the order of their ids."""
    name_of_id: dict[int, str] = {}
    for position, record in enumerate(_objects(records, "categories", problems)):
        dataset_id, name = read.as_integer(record.get("id")), record.get("name")
        if dataset_id is None or not isinstance(name, str) or not name.strip():
            problems.refuse("categories without an id or a name, positions", [position])
        elif name_of_id.setdefault(dataset_id, name) != name:
            problems.refuse("category ids with two names", [dataset_id])
        elif name in (name_of_id[other] for other in name_of_id if other != dataset_id):
            problems.refuse("category names with two ids (rename or delete one)", [name])
    if not name_of_id:
        problems.refuse("the list is empty", ["categories"])
    return CategoryMap(tuple(Category(name, key) for key, name in sorted(name_of_id.items())))


def read_images(
    records: Sequence[object],
    problems: AnnotationProblems,
    *,
    measure: Callable[[str], tuple[int, int] | None],
) -> ImageColumns:
    """Read the images, each once.

    Args:
        records: the section of the file.
        problems: gets what was repaired and what is refused.
        measure: gives width and height of an image file by its name, for records without them.
    """
    images = _objects(records, "images", problems)
    if not images:
        problems.refuse("the list is empty", ["images"])
    ids, has_id = read.integers([image.get("id") for image in images])
    problems.refuse("images without an integer id, positions", np.flatnonzero(~has_id))
    names = _file_names(images, ids, problems)
    sizes_wh = _sizes(images, ids, names, problems, measure=measure)

    _, first, group = np.unique(ids, return_index=True, return_inverse=True)
    first_of_each = first[group]
    is_repeated = first_of_each != np.arange(len(ids))
    is_same = (names == names[first_of_each]) & (sizes_wh == sizes_wh[first_of_each]).all(axis=1)
    problems.refuse("image ids used for different images", ids[is_repeated & ~is_same])
    problems.repair("images listed twice, taken once, image ids", ids[is_repeated & is_same])
    return ImageColumns(ids[~is_repeated], names[~is_repeated], sizes_wh[~is_repeated])


def read_annotations(
    records: Sequence[object],
    images: ImageColumns,
    categories: CategoryMap,
    problems: AnnotationProblems,
) -> AnnotationColumns:
    """Read the annotations: boxes clipped to their images, those without any area left out."""
    annotations = _objects(records, "annotations", problems)
    ids, has_id = read.integers([annotation.get("id") for annotation in annotations])

    image_indices = _rows_of([annotation.get("image_id") for annotation in annotations], images.ids)
    problems.refuse("annotations of an unknown image", ids[image_indices < 0])
    dataset_ids = np.array([category.dataset_id for category in categories], dtype=np.int64)
    labels = _rows_of([annotation.get("category_id") for annotation in annotations], dataset_ids)
    problems.refuse("annotations of an unknown category", ids[labels < 0])
    is_crowd, is_readable = read.flags([annotation.get("iscrowd") for annotation in annotations])
    problems.refuse("iscrowd is neither 0 nor 1", ids[~is_readable])

    boxes_xywh = _read_boxes(annotations, ids, problems)
    is_placed = (image_indices >= 0) & (labels >= 0)
    sizes_wh = np.concatenate([images.sizes_wh, [[0, 0]]])[image_indices]  # row -1: unknown
    boxes_xywh, is_kept = _fit_boxes(boxes_xywh, sizes_wh, ids, is_placed, problems)
    areas = _areas(annotations, boxes_xywh, ids, is_kept, problems)
    ids = _usable_ids(ids, has_id, problems)
    return AnnotationColumns(
        image_indices[is_kept],
        labels[is_kept],
        boxes_xywh[is_kept],
        areas[is_kept],
        is_crowd[is_kept],
        ids[is_kept],
    )


def _objects(records: Sequence[object], section: str, problems: AnnotationProblems) -> list[Record]:
    objects = [record for record in records if isinstance(record, dict)]
    if len(objects) < len(records):
        positions = (row for row, record in enumerate(records) if not isinstance(record, dict))
        problems.refuse(f"entries of {section} that are not objects, positions", positions)
    return objects


def _rows_of(values: Sequence[object], ids: Integers) -> Integers:
    """Return the row in `ids` of each value, (M,); -1 where it is not in there."""
    wanted, is_readable = read.integers(values)
    if not len(ids):
        return np.full(len(values), -1, dtype=np.int64)
    order = np.argsort(ids, kind="stable")
    rows = order[np.searchsorted(ids, wanted, sorter=order).clip(max=len(ids) - 1)]
    return np.where(is_readable & (ids[rows] == wanted), rows, -1)


def _file_names(
    images: Sequence[Record], ids: Integers, problems: AnnotationProblems
) -> NDArray[np.str_]:
    names = []
    for row, image in enumerate(images):
        written = image.get("file_name")
        name = _relative_name(written) if isinstance(written, str) else None
        if name is None:
            problems.refuse(
                "images whose file_name is no path inside the images folder",
                [f"image id {ids[row]}: {written!r}"],
            )
        elif "\\" in str(written):
            problems.repair("file_name with backslashes, read as folders, image ids", [ids[row]])
        names.append(name or "")
    return np.array(names, dtype=np.str_)


def _relative_name(written: str) -> str | None:
    """Return the name with forward slashes, None if it could lead out of the images folder."""
    name = written.replace("\\", "/")
    if _NO_FILE_BELOW.search(name):
        return None
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return None
    return name


def _sizes(
    images: Sequence[Record],
    ids: Integers,
    names: NDArray[np.str_],
    problems: AnnotationProblems,
    *,
    measure: Callable[[str], tuple[int, int] | None],
) -> Integers:
    """Return width and height of every image, (N, 2), 0 where they cannot be known."""
    columns = [
        read.integers([image.get(key) for image in images])[0] for key in ("width", "height")
    ]
    sizes_wh = np.stack(columns, axis=1)
    for row in np.flatnonzero((sizes_wh < 1).any(axis=1)):
        measured = measure(str(names[row])) if names[row] else None
        sizes_wh[row] = measured or (0, 0)
        what = f"image id {ids[row]}: {names[row]}"
        if measured:
            problems.repair("images without width and height, taken from the image file", [what])
        else:
            problems.refuse(
                "images without width and height, and no file to take them from", [what]
            )
    return sizes_wh


def _read_boxes(
    annotations: Sequence[Record], ids: Integers, problems: AnnotationProblems
) -> Floats:
    boxes_xywh, is_from_segmentation, is_absent, is_malformed = read.boxes(annotations)
    problems.refuse("malformed bbox or segmentation", ids[is_malformed])
    problems.repair("boxes taken from the segmentation", ids[is_from_segmentation & ~is_malformed])
    problems.repair("annotations without bbox and segmentation, dropped", ids[is_absent])
    greatest = np.abs(boxes_xywh[np.isfinite(boxes_xywh)]).max(initial=0)
    if 0 < greatest <= 1:
        problems.refuse("bbox must be pixels, all of these lie within 0..1", ids)
    return boxes_xywh


def _fit_boxes(
    boxes_xywh: Floats,
    sizes_wh: Integers,
    ids: Integers,
    is_placed: Flags,
    problems: AnnotationProblems,
) -> tuple[Floats, Flags]:
    """Clip boxes to their images.

    Args:
        boxes_xywh: (M, 4), NaN where the record has no box.
        sizes_wh: (M, 2) of the image of each box.
        ids: (M,) annotation ids.
        is_placed: (M,) image and category are known.
        problems: gets what was clipped and dropped.

    Returns:
        The boxes, untouched where they lie inside, 0 where dropped, (M, 4); and which of them
        to keep, (M,).
    """
    with np.errstate(over="ignore", invalid="ignore"):
        corners = np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1)
        limits = np.tile(sizes_wh, 2).astype(np.float64)
        clipped = corners.clip(0, limits)
        overhang = np.abs(clipped - corners).max(axis=1, initial=0)
        has_area, is_visible = _has_area(corners), _has_area(clipped)

    is_finite = np.isfinite(boxes_xywh).all(axis=1) & np.isfinite(corners).all(axis=1)
    is_empty = is_finite & ~has_area
    is_outside = is_finite & has_area & ~is_visible & is_placed
    is_kept = is_finite & has_area & is_visible & is_placed
    is_clipped = is_kept & (overhang > 0)

    has_nan = ~is_finite & ~np.isnan(boxes_xywh).all(axis=1)
    problems.repair("boxes with NaN or infinity, dropped", ids[has_nan])
    problems.repair("boxes of zero or negative size, dropped", ids[is_empty])
    problems.repair("boxes outside their image, dropped", ids[is_outside])
    problems.repair(
        "boxes partly outside their image, clipped", ids[is_kept & (overhang > _ROUNDING_PIXELS)]
    )
    fitted = np.concatenate([clipped[:, :2], clipped[:, 2:] - clipped[:, :2]], axis=1)
    fitted = np.where(is_clipped[:, None], fitted, boxes_xywh)
    return np.where(is_kept[:, None], fitted, 0.0), is_kept


def _has_area(corners: Floats) -> Flags:
    """Tell which boxes have an area in float32, which is what the models see."""
    as_seen = corners.astype(np.float32)
    return np.asarray((as_seen[:, 2:] > as_seen[:, :2]).all(axis=1))


def _areas(
    annotations: Sequence[Record],
    boxes_xywh: Floats,
    ids: Integers,
    is_kept: Flags,
    problems: AnnotationProblems,
) -> Floats:
    written: list[Any] = [annotation.get("area") for annotation in annotations]
    areas = read.floats(written)
    is_usable = np.isfinite(areas) & (areas > 0)
    is_unusable = ~is_usable & is_kept
    if is_unusable.any():
        is_given = np.array([value is not None for value in written], dtype=np.bool_)
        problems.repair("areas that are no positive number, replaced", ids[is_unusable & is_given])
    return np.where(is_usable, areas, boxes_xywh[:, 2] * boxes_xywh[:, 3])


def _usable_ids(ids: Integers, has_id: Flags, problems: AnnotationProblems) -> Integers:
    """Renumber unless every annotation has its own id from 1 on.

    pycocotools keeps the id of the ground truth that a detection matched and takes 0 for "none".
    """
    _, first = np.unique(ids, return_index=True)
    is_unusable = ~has_id | (ids < 1)
    is_unusable |= ~np.isin(np.arange(len(ids)), first)
    if not is_unusable.any():
        return ids
    problems.repair("annotation ids missing, repeated or below 1, renumbered", ids[is_unusable])
    return np.arange(1, len(ids) + 1)
