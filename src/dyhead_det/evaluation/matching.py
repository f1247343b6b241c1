"""Matching of detections with ground truth for a whole data set at once, as pycocotools does it.

pycocotools matches image by image and class by class in loops. Here all images take their turns
together: in turn n every image and class lets its n-th best detection choose, which leaves a few
operations on arrays. What the 12 numbers do not tell is computed from these matches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dyhead_det.evaluation.ground_truth import CocoResult

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
# COCO's own limit of detections of an image and class.
MAX_DETECTIONS = 100
# Overlap from which on a detection is near an object (the background of TIDE ends there).
NEAR = 0.1
# COCO's sizes end here: larger objects are ignored, in square pixels.
_LARGEST_AREA = 1e5**2
# Pairs of boxes that are compared at a time.
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Boxes:
    """N boxes of a data set, in the order of their images.

    image: position of each box's image among the images, (N,).
    label: position of its class among the classes, (N,).
    xywh: left, top, width and height in pixels, (N, 4).
    area: of the object, which may be smaller than its box, (N,).
    """

    image: NDArray[np.int64]
    label: NDArray[np.int64]
    xywh: NDArray[np.float64]
    area: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True, slots=True)
class Pairs:
    """P pairs of a detection and an object of the same image, whatever their classes.

    detection, object: positions in their tables, (P,).
    iou: intersection over union; of crowd regions the share of the detection inside, (P,).
    """

    detection: NDArray[np.int64]
    object: NDArray[np.int64]
    iou: NDArray[np.float64]

    def where(self, mask: NDArray[np.bool_]) -> "Pairs":
        """Return some of the pairs."""
        return Pairs(self.detection[mask], self.object[mask], self.iou[mask])


@dataclass(frozen=True, slots=True)
class Matches:
    """Detections and objects of a data set, and which belong together.

    image_ids: of I images, in ascending order.
    category_ids: of K classes, in the order of the labels.
    detections: D of them by image, class and score, best first; without those that are too many.
    score: of the detections, (D,).
    by_score: positions of the detections, highest score first, (D,).
    objects: G of them by image, in the order of the file.
    is_crowd: which objects are crowd regions, (G,).
    is_ignored: which objects need not be found: crowds, and those beyond all sizes, (G,).
    near: pairs that overlap by `NEAR` or more.
    thresholds: of the IoU, (T,).
    matched: the object that each detection is matched with, -1 for none, (T, D).
    is_detection_ignored: which detections are neither right nor wrong, (T, D).
    """

    image_ids: NDArray[np.int64]
    category_ids: tuple[int, ...]
    detections: Boxes
    score: NDArray[np.float64]
    by_score: NDArray[np.int64]
    objects: Boxes
    is_crowd: NDArray[np.bool_]
    is_ignored: NDArray[np.bool_]
    near: Pairs
    thresholds: NDArray[np.float64]
    matched: NDArray[np.int64]
    is_detection_ignored: NDArray[np.bool_]

    @property
    def is_true(self) -> NDArray[np.bool_]:
        """Which detections are right, (T, D)."""
        return (self.matched >= 0) & ~self.is_detection_ignored

    def objects_of_class(self) -> NDArray[np.int64]:
        """Return how many objects of each class are to be found, (K,)."""
        return np.bincount(
            self.objects.label[~self.is_ignored], minlength=len(self.category_ids)
        ).astype(np.int64)

    def best_first(self) -> list[NDArray[np.int64]]:
        """Return the positions of the detections of each class, highest score first."""
        rows, ends = by_class(self.detections.label[self.by_score], len(self.category_ids))
        return np.split(self.by_score[rows], ends[:-1])


def match(
    ground_truth: Mapping[str, Any],
    detections: Sequence[CocoResult],
    *,
    category_ids: Sequence[int] | None = None,
    max_detections: int = MAX_DETECTIONS,
    thresholds: NDArray[np.float64] = IOU_THRESHOLDS,
) -> Matches:
    """Match detections with ground truth as pycocotools does, for objects of every size.

    Args:
        ground_truth: A COCO dictionary.
        detections: COCO results on its images.
        category_ids: Of the classes in label order, None for those of the ground truth by id; what
            is of another class is left out.
        max_detections: Of an image and class, best first; the others are left out.
        thresholds: Of the intersection over union, ascending, from `NEAR` on.
    """
    image_ids = np.unique(np.array([image["id"] for image in ground_truth["images"]], np.int64))
    if category_ids is None:
        category_ids = sorted(category["id"] for category in ground_truth["categories"])
    annotations = ground_truth["annotations"]
    objects, kept = _table(annotations, image_ids, category_ids)
    is_crowd = np.array([bool(each.get("iscrowd")) for each in annotations], np.bool_)[kept]
    scores = np.array([each["score"] for each in detections], np.float64)
    found, order = _table(detections, image_ids, category_ids, scores=scores)
    turn = _rank_in_class(found)
    if len(turn) and turn.max() >= max_detections:
        found, order = _rows(found, turn < max_detections), order[turn < max_detections]
        turn = turn[turn < max_detections]
    is_ignored = is_crowd | _is_beyond(objects.area)
    near = _near_pairs(found, objects, is_crowd)
    is_same = found.label[near.detection] == objects.label[near.object]
    matched = greedy_match(
        near.where(is_same & (near.iou >= thresholds[0])),
        turn=turn,
        is_crowd=is_crowd,
        is_ignored=is_ignored,
        thresholds=thresholds,
    )
    is_detection_ignored = np.where(
        matched >= 0,
        np.append(is_ignored, False)[matched],  # the last for -1, which is no object
        _is_beyond(found.area),
    )
    return Matches(
        image_ids=image_ids,
        category_ids=tuple(category_ids),
        detections=found,
        score=scores[order],
        by_score=np.argsort(-scores[order], kind="stable"),  # of equal ones the earlier image
        objects=objects,
        is_crowd=is_crowd,
        is_ignored=is_ignored,
        near=near,
        thresholds=thresholds,
        matched=matched,
        is_detection_ignored=is_detection_ignored,
    )


def greedy_match(
    pairs: Pairs,
    *,
    turn: NDArray[np.int64],
    is_crowd: NDArray[np.bool_],
    is_ignored: NDArray[np.bool_],
    thresholds: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Let detections choose the nearest object that is still free, turn by turn.

    An object that is to be found comes before one that is ignored; of equally near ones the last
    is taken, as in pycocotools. A crowd region stays free.

    Args:
        pairs: Which detection may choose which object.
        turn: When each detection chooses, (D,); those of one turn want different objects.
        is_crowd: Objects that stay free, (G,).
        is_ignored: Objects that are chosen last, (G,).
        thresholds: Of the intersection over union, (T,).

    Returns:
        The object of each detection, -1 for none, (T, D).
    """
    order = np.lexsort(
        (
            -pairs.object,
            -pairs.iou,
            is_ignored[pairs.object],
            pairs.detection,
            turn[pairs.detection],
        )
    )
    pairs = pairs.where(order)  # type: ignore[arg-type]  # positions work as a mask does
    is_near = pairs.iou[:, None] >= np.minimum(thresholds, 1 - 1e-10)  # (P, T)
    is_free = np.ones((len(is_crowd), len(thresholds)), np.bool_)
    matched = np.full((len(thresholds), len(turn)), -1, np.int64)
    starts = np.flatnonzero(np.diff(pairs.detection, prepend=-1))  # of each detection's pairs
    ends_of_turns = np.flatnonzero(np.diff(turn[pairs.detection[starts]], append=-1)) + 1
    first = 0
    for last in ends_of_turns.tolist():
        begin, end = starts[first], starts[last] if last < len(starts) else len(order)
        wanted = pairs.object[begin:end]
        may_choose = is_near[begin:end] & is_free[wanted]
        none = end - begin
        choices = np.where(may_choose, np.arange(none)[:, None], none)
        choice = np.minimum.reduceat(choices, starts[first:last] - begin, axis=0)  # (d, T)
        row, threshold = np.nonzero(choice < none)
        chosen = wanted[choice[row, threshold]]
        matched[threshold, pairs.detection[starts[first:last]][row]] = chosen
        is_free[chosen, threshold] = is_crowd[chosen]
        first = last
    return matched


def by_class(
    labels: NDArray[np.int64], num_classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return positions by class, in their order otherwise, and where each class ends, (K,)."""
    # NumPy sorts numbers of 16 bits by their digits, ten times faster.
    keys = labels.astype(np.int16) if num_classes < np.iinfo(np.int16).max else labels
    return np.argsort(keys, kind="stable"), np.cumsum(np.bincount(labels, minlength=num_classes))


def _table(
    entries: Sequence[Mapping[str, Any]] | Sequence[CocoResult],
    image_ids: NDArray[np.int64],
    category_ids: Sequence[int],
    *,
    scores: NDArray[np.float64] | None = None,
) -> tuple[Boxes, NDArray[np.int64]]:
    """Sort boxes by image; those with scores also by class and score, best first.

    Returns:
        The boxes, and the position of each in the entries.
    """
    image = np.searchsorted(image_ids, np.array([each["image_id"] for each in entries], np.int64))
    ids = np.array(category_ids, np.int64)
    by_id = np.argsort(ids)
    category = np.array([each["category_id"] for each in entries], np.int64)
    place = np.searchsorted(ids, category, sorter=by_id).clip(max=len(ids) - 1)
    label = by_id[place]
    xywh = np.array([each["bbox"] for each in entries], np.float64).reshape(-1, 4)
    area = xywh[:, 2] * xywh[:, 3]
    if scores is None:  # detections have the area of their boxes
        areas = (each.get("area", of_box) for each, of_box in zip(entries, area, strict=True))
        area = np.fromiter(areas, np.float64, len(entries))
    order = np.lexsort((image,) if scores is None else (-scores, label, image))
    order = order[ids[label[order]] == category[order]]
    return Boxes(image[order], label[order], xywh[order], area[order]), order


def _rows(boxes: Boxes, mask: NDArray[np.bool_]) -> Boxes:
    return Boxes(boxes.image[mask], boxes.label[mask], boxes.xywh[mask], boxes.area[mask])


def _is_beyond(area: NDArray[np.float64]) -> NDArray[np.bool_]:
    return (area < 0) | (area > _LARGEST_AREA)


def _rank_in_class(found: Boxes) -> NDArray[np.int64]:
    """Return how many better detections of its class each has in its image, (D,)."""
    is_first = np.diff(found.image, prepend=-1) | np.diff(found.label, prepend=-1)
    starts = np.flatnonzero(is_first)
    sizes = np.diff(starts, append=len(found))
    return np.arange(len(found)) - np.repeat(starts, sizes)


def _near_pairs(found: Boxes, objects: Boxes, is_crowd: NDArray[np.bool_]) -> Pairs:
    """Return the pairs of each image that overlap by `NEAR` or more, crowds by their own rule."""
    bounds = np.searchsorted(objects.image, found.image, side="left")  # (D,)
    counts = np.searchsorted(objects.image, found.image, side="right") - bounds
    ends = np.cumsum(counts)
    blocks = []
    first = 0
    while first < len(found):
        done = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + _BLOCK, side="right")))
        detection = np.repeat(np.arange(first, last), counts[first:last])
        of_detection = np.repeat(ends[first:last] - counts[first:last] - done, counts[first:last])
        position = np.arange(len(detection)) - of_detection + bounds[detection]
        iou = _iou(found.xywh[detection], objects.xywh[position], is_crowd[position])
        is_near = iou >= NEAR
        blocks.append((detection[is_near], position[is_near], iou[is_near]))
        first = last
    if not blocks:
        nothing = np.zeros(0, np.int64)
        return Pairs(nothing, nothing, np.zeros(0))
    return Pairs(*(np.concatenate(column) for column in zip(*blocks, strict=True)))


def _iou(
    one: NDArray[np.float64], other: NDArray[np.float64], is_crowd: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the IoU of boxes (P, 4) row by row, in a crowd region the share of the first."""
    sides = np.minimum(one[:, :2] + one[:, 2:], other[:, :2] + other[:, 2:])
    sides -= np.maximum(one[:, :2], other[:, :2])
    common = np.where((sides > 0).all(axis=1), sides[:, 0] * sides[:, 1], 0.0)
    area = one[:, 2] * one[:, 3]
    union = np.where(is_crowd, area, area + other[:, 2] * other[:, 3] - common)
    return np.divide(common, union, out=np.zeros_like(common), where=common > 0)
