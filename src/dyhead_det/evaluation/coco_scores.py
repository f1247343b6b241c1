"""COCO metrics from detections: the 12 average precisions and recalls, and AP by class.

What they do not tell is computed besides, on request (`analysis`).
"""

import contextlib
import io
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dyhead_det.contracts import CategoryMap
from dyhead_det.errors import DatasetError
from dyhead_det.evaluation.analysis.analyze import Analysis, analyze, best_min_scores
from dyhead_det.evaluation.backends import Backend, build_evaluation, import_backend
from dyhead_det.evaluation.ground_truth import (
    CocoResult,
    crowding_notes,
    has_objects,
    require_known,
    without_unread_images,
)
from dyhead_det.evaluation.matching import MAX_DETECTIONS
from dyhead_det.evaluation.speed import Speed
from dyhead_det.tables import text_table

# Positions in the evaluators' arrays: areas as pycocotools orders them, 1 / 10 / 100 detections (or
# what is counted in place of 100), IoU thresholds 0.50, 0.55 .. 0.95.
_ALL, _SMALL, _MEDIUM, _LARGE = range(4)
_AT_1, _AT_10, _AT_MOST = range(3)
_IOU_50, _IOU_75 = 0, 5


@dataclass(frozen=True, slots=True)
class ClassResult:
    """How well one class is found; without ground truth (of a size) there is no number.

    min_score: bound of the score with the highest F1 at IoU .5, that of all classes together where
        the class has none of its own; None where no detection of any class is right.
    """

    name: str
    num_boxes: int
    AP: float | None
    AP50: float | None
    AP75: float | None = None
    APs: float | None = None
    APm: float | None = None
    APl: float | None = None
    min_score: float | None = None


@dataclass(frozen=True, slots=True)
class EvalResult:
    """COCO's 12 numbers by name, and one line per class in label order.

    A number is None where no ground truth asks for it, for instance APl without large objects.

    num_images: that were read and are scored.
    num_unreadable_images: the others of the data set; their objects do not count as missed.
    notes: what keeps the numbers from saying what one would expect, each a sentence.
    speed: where a detector was run; of this process.
    analysis: what the 12 numbers do not tell, where it was asked for.
    """

    metrics: dict[str, float | None]
    classes: tuple[ClassResult, ...]
    num_images: int
    num_boxes: int
    num_detections: int
    backend: str
    num_unreadable_images: int = 0
    notes: tuple[str, ...] = ()
    speed: Speed | None = field(default=None, compare=False)
    analysis: Analysis | None = field(default=None, compare=False, repr=False)

    @property
    def min_scores(self) -> dict[str, float] | None:
        """Return the bound of the score with the highest F1 of each class, if there is any."""
        bounds = {line.name: line.min_score for line in self.classes}
        known = {name: bound for name, bound in bounds.items() if bound is not None}
        return known or None

    @property
    def ap(self) -> float:
        """COCO's main number, AP averaged over IoU .50:.95."""
        return self.metrics["AP"] or 0.0

    def to_plain(self) -> dict[str, Any]:
        """Return plain values for JSON, without the analysis."""
        return asdict(replace(self, analysis=None)) | {"min_scores": self.min_scores}

    def table(self) -> str:
        """Return the numbers as text for a terminal."""
        names = list(self.metrics)
        lines = [
            f"{self.num_boxes} boxes in {self.num_images} images, "
            f"{self.num_detections} detections ({self.backend})",
            *(f"note: {note}" for note in self.notes),
            "",
            *(
                text_table(row, [[f"{decimal(self.metrics[name]):>5}" for name in row]])
                for row in (names[:6], names[6:])
            ),
            "",
            self.class_table(),
        ]
        if self.speed is not None:
            lines += ["", f"per image: {self.speed.text()}"]
        return "\n".join(lines)

    def class_table(self) -> str:
        """Return a line for each class, for a terminal."""
        return text_table(
            ("class", "boxes", "AP", "AP50", "best min-score"),
            [
                (
                    line.name,
                    line.num_boxes,
                    decimal(line.AP),
                    decimal(line.AP50),
                    decimal(line.min_score),
                )
                for line in self.classes
            ],
        )


def metric_names(max_detections: int) -> tuple[str, ...]:
    """Return the names of COCO's 12 numbers, in COCO's order."""
    precisions = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    return (*precisions, "AR1", "AR10", f"AR{max_detections}", "ARs", "ARm", "ARl")


def require_scorable(ground_truth: Mapping[str, Any], backend: Backend) -> None:
    """Find out before a long run whether its detections can be scored at the end.

    Raises:
        DatasetError: where the ground truth holds no box that could be found.
        ConfigError: where the backend is not installed.
    """
    if not has_objects(ground_truth):
        raise DatasetError(
            f"nothing to evaluate against: {len(ground_truth['images'])} images without a single "
            "annotated object; give a data set with annotations"
        )
    import_backend(backend)


def evaluate_detections(
    ground_truth: Mapping[str, Any],
    detections: Sequence[CocoResult],
    categories: CategoryMap,
    *,
    backend: Backend,
    max_detections: int = MAX_DETECTIONS,
    detections_per_image: int | None = None,
    read_images: Collection[int] | None = None,
    with_analysis: bool = False,
) -> EvalResult:
    """Score detections as COCO does.

    Args:
        ground_truth: a COCO dictionary.
        detections: COCO results on images and categories of the ground truth.
        categories: the classes in label order, with the ids of the ground truth.
        backend: who computes the numbers.
        max_detections: of an image and class that are counted, best first, more than 10; with
            another number than COCO's 100 the metric AR100 is called after it.
        detections_per_image: the most that the detector returns, if known; for a note.
        read_images: ids of the images that the detector has seen, None for all.
        with_analysis: also find out what the 12 numbers do not tell.

    Raises:
        DatasetError: as `require_scorable`, and where detections are of images or categories that
            the ground truth does not have.
        ConfigError: as `require_scorable`.
        ValueError: where `max_detections` is 10 or less.
    """
    if max_detections <= 10:  # where AR10 is counted
        raise ValueError(f"max_detections: more than 10 is needed, not {max_detections}")
    require_scorable(ground_truth, backend)
    num_images = len(ground_truth["images"])
    if read_images is not None:
        ground_truth = without_unread_images(ground_truth, read_images)
    num_unreadable = num_images - len(ground_truth["images"])
    require_known(ground_truth, detections)
    boxes_of_class = Counter(
        annotation["category_id"]
        for annotation in ground_truth["annotations"]
        if not annotation.get("iscrowd")
    )
    scored_ids = sorted(boxes_of_class)
    precision, recall, backend_name = _accumulate(
        ground_truth, detections, scored_ids, backend, max_detections
    )
    scoring = (ground_truth, detections, categories)
    analysis = analyze(*scoring, max_detections=max_detections) if with_analysis else None
    min_scores = (
        best_min_scores(*scoring, max_detections=max_detections)
        if analysis is None
        else analysis.min_scores()
    )
    precision_of_class = dict(  # each (T, R, areas)
        zip(scored_ids, precision[..., _AT_MOST].transpose(2, 0, 1, 3), strict=True)
    )
    classes = [
        _class_result(
            category.name,
            boxes_of_class[category.dataset_id],
            precision_of_class.get(category.dataset_id),
            min_score=None if min_scores is None else min_scores[category.name],
        )
        for category in categories
    ]
    return EvalResult(
        metrics=_twelve_numbers(precision, recall, max_detections),
        classes=tuple(classes),
        num_images=len(ground_truth["images"]),
        num_boxes=boxes_of_class.total(),
        num_detections=len(detections),
        backend=backend_name,
        num_unreadable_images=num_unreadable,
        notes=(
            *_unreadable_note(num_unreadable, num_images),
            *crowding_notes(
                ground_truth,
                max_detections=max_detections,
                detections_per_image=detections_per_image,
            ),
        ),
        analysis=analysis,
    )


def _class_result(
    name: str, num_boxes: int, precision: NDArray[np.float64] | None, *, min_score: float | None
) -> ClassResult:
    """Average the precisions (T, R, areas) of a class; None where it has no ground truth."""
    if precision is None:
        return ClassResult(name, num_boxes, None, None, min_score=min_score)
    return ClassResult(
        name,
        num_boxes,
        AP=_mean(precision[..., _ALL]),
        AP50=_mean(precision[_IOU_50, ..., _ALL]),
        AP75=_mean(precision[_IOU_75, ..., _ALL]),
        APs=_mean(precision[..., _SMALL]),
        APm=_mean(precision[..., _MEDIUM]),
        APl=_mean(precision[..., _LARGE]),
        min_score=min_score,
    )


def _unreadable_note(num_unreadable: int, num_images: int) -> list[str]:
    if not num_unreadable:
        return []
    return [
        f"{num_unreadable} of {num_images} images could not be read; the numbers are those of the "
        "others"
    ]


def _accumulate(
    ground_truth: Mapping[str, Any],
    detections: Sequence[CocoResult],
    category_ids: Sequence[int],
    backend: Backend,
    max_detections: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    """Match detections with ground truth.

    Only in categories that have objects: the others have no number in any case, and 20,000 of them
    would take gigabytes.

    Returns:
        Precision (T, R, K, areas, counts) over 10 IoU thresholds, 101 recalls and the K categories,
        which are in order of id, recall (T, K, areas, counts), both -1 where there is no ground
        truth, and the name of who computed them.
    """
    name, evaluation = build_evaluation(ground_truth, detections, backend)
    evaluation.params.maxDets = [1, 10, max_detections]
    evaluation.params.catIds = list(category_ids)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"], name


def _twelve_numbers(
    precision: NDArray[np.float64], recall: NDArray[np.float64], max_detections: int
) -> dict[str, float | None]:
    """Average precision and recall as COCO's summary does."""
    ap = precision[..., _AT_MOST]  # (T, R, K, areas)
    ar = recall[..., _AT_MOST]  # (T, K, areas)
    of_metrics = (
        ap[..., _ALL],
        ap[_IOU_50, ..., _ALL],
        ap[_IOU_75, ..., _ALL],
        ap[..., _SMALL],
        ap[..., _MEDIUM],
        ap[..., _LARGE],
        recall[..., _ALL, _AT_1],
        recall[..., _ALL, _AT_10],
        ar[..., _ALL],
        ar[..., _SMALL],
        ar[..., _MEDIUM],
        ar[..., _LARGE],
    )
    names = metric_names(max_detections)
    return {name: _mean(values) for name, values in zip(names, of_metrics, strict=True)}


def _mean(values: NDArray[np.float64]) -> float | None:
    """Average what is defined; the evaluators write -1 where there is no ground truth."""
    defined = values[values > -1]
    return float(np.mean(defined)) if defined.size else None


def decimal(value: float | None) -> str:
    """Return a number between 0 and 1 to three digits; a dash where there is none."""
    return "-" if value is None else f"{value:.3f}"
