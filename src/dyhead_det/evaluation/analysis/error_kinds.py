"""Errors by kind, and what AP50 would gain without each: TIDE.

Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", 2020
(arXiv 2008.08115), section 2; where the text leaves room, the authors' program decides. A wrong
detection is of the first kind that fits:

* localization: IoU of .1 to .5 with an object of its class;
* class: IoU of at least .5 with an object of another class;
* duplicate: IoU of at least .5 with an object of its class that a better detection has;
* background: IoU of at most .1 with every object;
* both: all others, wrong in class and in place.

An object that nothing finds, and that no error of class or localization is about, is missed. The
authors' program also sorts detections in crowd regions, which COCO leaves out, and counts classes
without objects; here both are left out.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dyhead_det.evaluation.analysis.curves import average_precision
from dyhead_det.evaluation.matching import NEAR, Matches, Pairs, by_class

Kind = Literal["class", "localization", "both", "duplicate", "background", "missed"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_NONE = -1
_CLASS, _LOCALIZATION, _BOTH, _DUPLICATE, _BACKGROUND, _MISSED = range(len(KINDS))


@dataclass(frozen=True, slots=True)
class ErrorKinds:
    """Errors at IoU .5.

    ap50: of COCO, over the classes that have objects.
    counts: number of errors of each kind.
    gains: what AP50 would gain if only the errors of that kind were mended.
    counts_of_class: as `counts`, for each class in label order: of the detections, and of the
        objects that are missed.
    """

    ap50: float
    counts: dict[Kind, int]
    gains: dict[Kind, float]
    counts_of_class: list[dict[Kind, int]]


def error_kinds(matches: Matches) -> ErrorKinds:
    """Sort the errors of all detections, and measure what each kind costs."""
    kind, about = _sort(matches)
    is_missed = _missed(matches, kind, about)
    num_classes = len(matches.category_ids)
    per_class = {
        name: np.bincount(matches.detections.label[kind == number], minlength=num_classes)
        for number, name in enumerate(KINDS[:_MISSED])
    }
    per_class["missed"] = np.bincount(matches.objects.label[is_missed], minlength=num_classes)
    ap50 = _mean_ap(matches, matches.detections.label, matches.is_true[0])
    return ErrorKinds(
        ap50=ap50,
        counts={name: int(numbers.sum()) for name, numbers in per_class.items()},
        gains={
            name: max(0.0, _ap_without(number, matches, kind, about, is_missed) - ap50)
            for number, name in enumerate(KINDS)
        },
        counts_of_class=[
            {name: int(numbers[label]) for name, numbers in per_class.items()}
            for label in range(num_classes)
        ],
    )


def _sort(matches: Matches) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the kind of each detection, -1 for no error, and the object that it is about, (D,)."""
    num = len(matches.detections)
    near = matches.near.where(~matches.is_ignored[matches.near.object])
    is_same = matches.detections.label[near.detection] == matches.objects.label[near.object]
    same_iou, same_object = _nearest(near.where(is_same), num)
    other_iou, other_object = _nearest(near.where(~is_same), num)
    threshold = matches.thresholds[0]
    is_error = (matches.matched[0] < 0) & ~matches.is_detection_ignored[0]
    # The first that fits, from the last on.
    kind = np.full(num, _BOTH)
    kind[np.maximum(same_iou, other_iou) <= NEAR] = _BACKGROUND
    kind[same_iou > threshold] = _DUPLICATE  # all objects that near have another detection
    kind[other_iou >= threshold] = _CLASS
    kind[(same_iou >= NEAR) & (same_iou <= threshold)] = _LOCALIZATION
    kind[~is_error] = _NONE
    return kind, np.where(kind == _CLASS, other_object, same_object)


def _nearest(pairs: Pairs, num: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the greatest IoU of each detection and the first object that has it; 0, -1 if none."""
    iou, nearest = np.zeros(num), np.full(num, -1)
    order = np.lexsort((pairs.object, -pairs.iou, pairs.detection))
    detection = pairs.detection[order]
    is_first = np.diff(detection, prepend=-1) > 0
    iou[detection[is_first]] = pairs.iou[order][is_first]
    nearest[detection[is_first]] = pairs.object[order][is_first]
    return iou, nearest


def _missed(
    matches: Matches, kind: NDArray[np.int64], about: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return the objects that nothing finds and no error that could be mended is about, (G,)."""
    is_missed = ~matches.is_ignored
    is_missed[matches.matched[0][matches.matched[0] >= 0]] = False
    is_missed[about[(kind == _CLASS) | (kind == _LOCALIZATION)]] = False
    return is_missed


def _ap_without(
    number: int,
    matches: Matches,
    kind: NDArray[np.int64],
    about: NDArray[np.int64],
    is_missed: NDArray[np.bool_],
) -> float:
    """Return AP50 with the errors of one kind mended.

    Of the errors of class and localization about an object that nothing finds the best becomes
    right, as a detection of that object; all other errors of the kind vanish. Missed objects need
    not be found any more.
    """
    label = matches.detections.label.copy()
    is_true = matches.is_true[0].copy()
    is_left_out = kind == number
    if number == _MISSED:
        return _mean_ap(matches, label, is_true, is_excused=is_missed)
    if number in (_CLASS, _LOCALIZATION):
        best = _best_about(matches, kind, about)
        mended = best[kind[best] == number]
        is_left_out[mended] = False
        is_true[mended] = True
        label[mended] = matches.objects.label[about[mended]]
    label[is_left_out] = -1
    return _mean_ap(matches, label, is_true)


def _best_about(
    matches: Matches, kind: NDArray[np.int64], about: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the best error of class or localization about each object that nothing finds."""
    is_found = np.zeros(len(matches.objects), np.bool_)
    is_found[matches.matched[0][matches.matched[0] >= 0]] = True
    rows = np.flatnonzero((kind == _CLASS) | (kind == _LOCALIZATION))
    rows = rows[~is_found[about[rows]]]
    rows = rows[np.lexsort((-matches.score[rows], about[rows]))]
    return rows[np.diff(about[rows], prepend=-1) > 0]


def _mean_ap(
    matches: Matches,
    label: NDArray[np.int64],
    is_true: NDArray[np.bool_],
    *,
    is_excused: NDArray[np.bool_] | None = None,
) -> float:
    """Return the mean AP50 over the classes that have objects.

    Args:
        matches: of the data set.
        label: class of each detection, -1 for none, (D,).
        is_true: which detections are right, (D,).
        is_excused: objects that need not be found, besides those that never need, (G,).
    """
    rows = matches.by_score
    rows = rows[(label[rows] >= 0) & ~matches.is_detection_ignored[0][rows]]
    order, ends = by_class(label[rows], len(matches.category_ids))
    of_classes = np.split(is_true[rows][order], ends[:-1])
    is_positive = ~matches.is_ignored if is_excused is None else ~(matches.is_ignored | is_excused)
    counts = np.bincount(matches.objects.label[is_positive], minlength=len(matches.category_ids))
    aps = []
    for number in np.flatnonzero(matches.objects_of_class()):
        if counts[number]:
            aps.append(average_precision(of_classes[number], int(counts[number])))
        elif len(of_classes[number]):  # all that were to be found are excused
            aps.append(0.0)
    return float(np.mean(aps)) if aps else 0.0
