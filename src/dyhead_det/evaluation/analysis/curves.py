"""Precision and recall as curves: over the recall, as AP is computed, and over the score."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dyhead_det.evaluation.matching import Matches

# As in COCO: AP is the mean of the precisions at these recalls.
RECALLS = np.linspace(0, 1, 101)
# Where the curves over the score are drawn.
SCORES = np.linspace(0, 1, 101)

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ScoreBound:
    """The bound of the score with the highest F1, and what it gives at IoU .5."""

    min_score: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class ScoreCurve:
    """Precision, recall and F1 of what scores at least as much as each of `SCORES`, (101,).

    The precision is NaN where nothing scores so much. best: None without right detections.
    """

    precision: Floats
    recall: Floats
    f1: Floats
    best: ScoreBound | None


def interpolated_precision(is_true: Flags, num_objects: int) -> Floats:
    """Return the highest precision at each of `RECALLS` or beyond it, (101,).

    Args:
        is_true: whether each detection is right, best first, without ignored ones, (D,).
        num_objects: that are to be found; at least one.
    """
    num_true = np.cumsum(is_true)[is_true]
    precision = num_true / (np.flatnonzero(is_true) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    reached = np.searchsorted(num_true / num_objects, RECALLS, side="left")
    return np.append(envelope, 0.0)[reached]  # 0 where a recall is not reached


def average_precision(is_true: Flags, num_objects: int) -> float:
    """Return COCO's AP of one class at one IoU threshold; arguments as above."""
    return float(interpolated_precision(is_true, num_objects).mean())


def precision_recall_curves(matches: Matches, threshold: int) -> dict[int, Floats]:
    """Return the precision at each of `RECALLS` by label, of the classes that have objects.

    Args:
        matches: of the data set.
        threshold: position among the thresholds of the IoU.
    """
    is_true, is_ignored = matches.is_true[threshold], matches.is_detection_ignored[threshold]
    counts = matches.objects_of_class()
    return {
        label: interpolated_precision(is_true[rows][~is_ignored[rows]], int(counts[label]))
        for label, rows in enumerate(matches.best_first())
        if counts[label]
    }


def score_curves(matches: Matches) -> tuple[ScoreCurve, list[ScoreCurve | None]]:
    """Return the curve of all classes together, and that of each class, at the first threshold.

    Classes without objects have none.
    """
    is_true, is_counted = matches.is_true[0], ~matches.is_detection_ignored[0]
    counts = matches.objects_of_class()
    of_classes = [
        score_curve(
            matches.score[rows][is_counted[rows]], is_true[rows][is_counted[rows]], int(number)
        )
        if number
        else None
        for rows, number in zip(matches.best_first(), counts, strict=True)
    ]
    order = matches.by_score[is_counted[matches.by_score]]
    return score_curve(matches.score[order], is_true[order], int(counts.sum())), of_classes


def score_curve(scores: Floats, is_true: Flags, num_objects: int) -> ScoreCurve:
    """Return precision, recall and F1 over the score.

    Args:
        scores: of the detections, highest first, (D,).
        is_true: whether each is right, (D,).
        num_objects: that are to be found; at least one.
    """
    num_true = np.cumsum(np.append(0, is_true))  # among the best n, n from 0 to D
    num_seen = np.searchsorted(-scores, -SCORES, side="right")
    true_here = num_true[num_seen]
    with np.errstate(invalid="ignore"):
        precision = true_here / num_seen
    return ScoreCurve(
        precision=precision,
        recall=true_here / num_objects,
        f1=2 * true_here / (num_seen + num_objects),
        best=_best_bound(scores, num_true, num_objects),
    )


def _best_bound(scores: Floats, num_true: NDArray[np.int64], num_objects: int) -> ScoreBound | None:
    """Find the bound with the highest F1: halfway between two scores, so that rounding is safe."""
    if not num_true[-1]:
        return None
    num_seen = np.arange(1, len(scores) + 1)
    f1 = 2 * num_true[1:] / (num_seen + num_objects)
    f1[:-1][scores[:-1] == scores[1:]] = 0  # equal scores come together
    best = int(np.argmax(f1))
    following = scores[best + 1] if best + 1 < len(scores) else scores[best]
    return ScoreBound(
        min_score=float((scores[best] + following) / 2),
        precision=float(num_true[best + 1] / (best + 1)),
        recall=float(num_true[best + 1] / num_objects),
        f1=float(f1[best]),
    )


def min_scores(overall: ScoreCurve, of_classes: Sequence[ScoreCurve | None]) -> list[float] | None:
    """Return the bound of each class with the highest F1; that of all where a class has none.

    Returns:
        In label order; None where no detection is right.
    """
    if overall.best is None:
        return None
    return [
        (curve.best if curve is not None and curve.best is not None else overall.best).min_score
        for curve in of_classes
    ]
