"""Paired bootstrap of average precision: how far it varies with the images that happen to be there.

AP is a function of which detections match which ground truth. The matches of an image do not depend
on the other images, so they are computed once; a resample of the images, drawn with replacement,
only changes how often each counts (Efron, "Bootstrap methods", 1979). Two detectors that are scored
on the same resamples give the distribution of their difference, in which easy and hard images
cancel (Koehn, "Statistical significance tests for machine translation evaluation", 2004).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dyhead_det.evaluation.analysis.curves import RECALLS
from dyhead_det.evaluation.ground_truth import CocoResult
from dyhead_det.evaluation.matching import Matches, match

# Resamples by detections that are computed at a time.
_CELLS = 10**7


@dataclass(frozen=True, slots=True)
class ClassMatches:
    """Detections of one class, highest score first, and whether they are right.

    image: index of each detection's image, (D,).
    is_true: whether it matches ground truth, for 10 IoU thresholds, (T, D).
    is_ignored: whether it counts neither as right nor as wrong, (T, D).
    num_boxes: boxes of this class to be found in each image, (I,).
    """

    image: NDArray[np.int64]
    is_true: NDArray[np.bool_]
    is_ignored: NDArray[np.bool_]
    num_boxes: NDArray[np.int64]


def match_detections(
    ground_truth: Mapping[str, Any], detections: Sequence[CocoResult]
) -> list[ClassMatches]:
    """Match detections with ground truth as pycocotools does, for boxes of every size.

    Args:
        ground_truth: A COCO dictionary.
        detections: COCO results on its images.

    Returns:
        The matches of each class of the ground truth; images and classes are in order of their ids.
    """
    return class_matches(match(ground_truth, detections))


def class_matches(matches: Matches) -> list[ClassMatches]:
    """Return the matches of each class, in label order."""
    objects, num_images = matches.objects, len(matches.image_ids)
    is_true = matches.is_true
    return [
        ClassMatches(
            image=matches.detections.image[rows],
            is_true=is_true[:, rows],
            is_ignored=matches.is_detection_ignored[:, rows],
            num_boxes=np.bincount(
                objects.image[(objects.label == label) & ~matches.is_ignored],
                minlength=num_images,
            ),
        )
        for label, rows in enumerate(matches.best_first())
    ]


def resample_images(num_images: int, num_resamples: int, *, seed: int) -> NDArray[np.int64]:
    """Draw as many images as there are, with replacement, many times.

    Returns:
        How often each image was drawn, (num_resamples, num_images).
    """
    shares = np.full(num_images, 1 / num_images)
    return np.random.default_rng(seed).multinomial(num_images, shares, size=num_resamples)


def average_precisions(
    classes: Sequence[ClassMatches], image_counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return AP at 10 IoU thresholds on resampled images; their mean is COCO's AP.

    Args:
        classes: As `match_detections` returns them.
        image_counts: How often each of I images counts in each of R resamples, (R, I).

    Returns:
        The means over the classes that a resample asks for, (R, T); NaN where it asks for none.
    """
    precisions = np.stack([_of_class(each, image_counts) for each in classes])  # (K, R, T)
    is_known = ~np.isnan(precisions)
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = np.nansum(precisions, axis=0) / is_known.sum(axis=0)
    return mean


def resampled_ap(
    classes: Sequence[ClassMatches], image_counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return COCO's AP on each resample, (R,), some resamples at a time to bound the memory."""
    most = max((len(each.image) for each in classes), default=0)
    size = max(1, _CELLS // max(most, 1))
    parts = range(0, len(image_counts), size)
    bar = tqdm(parts, desc="bootstrap", leave=False, disable=None)
    return np.concatenate(
        [average_precisions(classes, image_counts[i : i + size]).mean(axis=1) for i in bar]
    )


def _of_class(matches: ClassMatches, image_counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return AP of one class, (R, T); NaN in resamples without a box of it."""
    num_boxes = image_counts @ matches.num_boxes  # (R,)
    result = np.full((len(image_counts), len(matches.is_true)), np.nan)
    rows = np.flatnonzero(num_boxes)
    counts = image_counts[rows][:, matches.image]  # (R', D)
    for threshold, (is_true, is_ignored) in enumerate(
        zip(matches.is_true, matches.is_ignored, strict=True)
    ):
        # Recall rises at right detections only, and there the curve has its highest points.
        is_right = is_true & ~is_ignored
        num_seen = np.cumsum(counts * ~is_ignored, axis=1)[:, is_right]  # (R', D')
        num_true = np.cumsum(counts[:, is_right], axis=1)
        precision = num_true / np.maximum(num_seen, 1)
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        envelope = np.pad(envelope, ((0, 0), (0, 1)))  # a recall that is not reached
        recall = num_true / num_boxes[rows, None]
        for row, recalls, heights in zip(rows, recall, envelope, strict=True):
            reached = np.searchsorted(recalls, RECALLS, side="left")
            result[row, threshold] = heights[reached].mean()
    return result


def interval(values: NDArray[np.float64], *, level: float = 0.95) -> tuple[float, float]:
    """Return the percentiles that hold a share of resampled values between them."""
    outside = 50 * (1 - level)
    low, high = np.nanpercentile(values, [outside, 100 - outside])
    return float(low), float(high)
