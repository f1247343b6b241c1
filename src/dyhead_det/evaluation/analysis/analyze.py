"""The analysis of an evaluation: everything that is computed from one pass of matching."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dyhead_det.contracts import CategoryMap
from dyhead_det.evaluation.analysis.calibration import Calibration, calibration
from dyhead_det.evaluation.analysis.crowding import CrowdingGroup, ap_by_crowding
from dyhead_det.evaluation.analysis.curves import (
    RECALLS,
    SCORES,
    ScoreCurve,
    min_scores,
    precision_recall_curves,
    score_curves,
)
from dyhead_det.evaluation.analysis.error_kinds import ErrorKinds, error_kinds
from dyhead_det.evaluation.analysis.outcomes import (
    ImageCounts,
    ImageOutcomes,
    assign_outcomes,
    confusion_matrix,
    image_counts,
    image_outcomes,
)
from dyhead_det.evaluation.ground_truth import CocoResult
from dyhead_det.evaluation.matching import IOU_THRESHOLDS, MAX_DETECTIONS, match

# IoU of the precision-recall curves by position among the thresholds.
CURVE_IOUS = {0: 0.5, 5: 0.75}
# What confusions and worst images are shown at where no detection is right.
_FALLBACK_SCORE = 0.5
_MOST_WORST = 12


@dataclass(frozen=True, slots=True)
class Analysis:
    """What the 12 numbers do not tell.

    num_objects: to be found, of each class, (K,).
    precision_at_recall: by IoU and label, at the recalls of COCO, (101,) each; of classes that have
        objects.
    overall, of_classes: precision, recall and F1 over the score at IoU .5.
    min_score: bound of the score at which confusions and images are counted.
    confusion: annotated class by detected class, background last, (K + 1, K + 1).
    image_ids: in the order of `images`.
    worst: images with most misses and false detections.
    """

    class_names: tuple[str, ...]
    num_objects: NDArray[np.int64]
    precision_at_recall: dict[float, dict[int, NDArray[np.float64]]]
    overall: ScoreCurve
    of_classes: list[ScoreCurve | None]
    errors: ErrorKinds
    min_score: float
    confusion: NDArray[np.int64]
    crowding: list[CrowdingGroup]
    calibration: Calibration
    image_ids: NDArray[np.int64]
    images: ImageCounts
    worst: tuple[ImageOutcomes, ...]

    def min_scores(self) -> dict[str, float] | None:
        """Return the bound of the score with the highest F1 by class; None if nothing is right."""
        bounds = min_scores(self.overall, self.of_classes)
        return None if bounds is None else dict(zip(self.class_names, bounds, strict=True))

    def to_plain(self) -> dict[str, Any]:
        """Return plain values for JSON, None where there is no number."""
        return {
            "iou": IOU_THRESHOLDS[0],
            "classes": list(self.class_names),
            "score_curves": {
                "scores": SCORES.tolist(),
                "overall": _curve(self.overall),
                "classes": dict(zip(self.class_names, map(_curve, self.of_classes), strict=True)),
            },
            "precision_recall": {
                "recalls": RECALLS.tolist(),
                "iou": {
                    f"{iou:.2f}": {self.class_names[k]: _plain(curve) for k, curve in of.items()}
                    for iou, of in self.precision_at_recall.items()
                },
            },
            "errors": asdict(self.errors),
            "confusion": {
                "min_score": self.min_score,
                "annotated_by_detected": self.confusion.tolist(),
            },
            "crowding": [{"objects": group.name, **asdict(group)} for group in self.crowding],
            "calibration": {
                "expected_calibration_error": self.calibration.error,
                "counts": self.calibration.counts.tolist(),
                "scores": _plain(self.calibration.scores),
                "shares_right": _plain(self.calibration.shares_right),
            },
        }


def analyze(
    ground_truth: Mapping[str, Any],
    detections: Sequence[CocoResult],
    categories: CategoryMap,
    *,
    max_detections: int = MAX_DETECTIONS,
) -> Analysis:
    """Explain the detections of a data set that holds at least one object.

    Args:
        ground_truth: a COCO dictionary.
        detections: COCO results on its images.
        categories: the classes in label order, with the ids of the ground truth.
        max_detections: of an image and class that are counted, best first.
    """
    matches = match(
        ground_truth,
        detections,
        category_ids=[category.dataset_id for category in categories],
        max_detections=max_detections,
    )
    overall, of_classes = score_curves(matches)
    min_score = _FALLBACK_SCORE if overall.best is None else overall.best.min_score
    outcomes = assign_outcomes(matches, min_score)
    counts = image_counts(matches, outcomes)
    return Analysis(
        class_names=categories.names,
        num_objects=matches.objects_of_class(),
        precision_at_recall={
            iou: precision_recall_curves(matches, position) for position, iou in CURVE_IOUS.items()
        },
        overall=overall,
        of_classes=of_classes,
        errors=error_kinds(matches),
        min_score=min_score,
        confusion=confusion_matrix(matches, outcomes),
        crowding=ap_by_crowding(matches),
        calibration=calibration(matches),
        image_ids=matches.image_ids,
        images=counts,
        worst=tuple(
            image_outcomes(matches, outcomes, int(image)) for image in counts.worst(_MOST_WORST)
        ),
    )


def best_min_scores(
    ground_truth: Mapping[str, Any],
    detections: Sequence[CocoResult],
    categories: CategoryMap,
    *,
    max_detections: int = MAX_DETECTIONS,
) -> dict[str, float] | None:
    """Return the bound of the score with the highest F1 by class, without all the rest.

    Returns:
        None where no detection is right.
    """
    matches = match(
        ground_truth,
        detections,
        category_ids=[category.dataset_id for category in categories],
        max_detections=max_detections,
        thresholds=IOU_THRESHOLDS[:1],
    )
    bounds = min_scores(*score_curves(matches))
    return None if bounds is None else dict(zip(categories.names, bounds, strict=True))


def _curve(curve: ScoreCurve | None) -> dict[str, Any] | None:
    if curve is None:
        return None
    return {
        "best": None if curve.best is None else asdict(curve.best),
        "precision": _plain(curve.precision),
        "recall": _plain(curve.recall),
        "f1": _plain(curve.f1),
    }


def _plain(values: NDArray[np.float64]) -> list[float | None]:
    """Return numbers to six digits; None for NaN, which JSON does not have."""
    return [None if math.isnan(value) else round(value, 6) for value in values.tolist()]
