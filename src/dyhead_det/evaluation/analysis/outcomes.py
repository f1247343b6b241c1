"""What becomes of each object and each detection at one bound of the score, at IoU .5.

Hits are those that COCO counts. What is left of an image, wrong detections and objects that are not
found, is matched once more whatever the class: that is what the detector confuses.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dyhead_det.evaluation.matching import Matches, greedy_match


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What becomes of the detections that score enough, and of the objects.

    min_score: the bound.
    shown: positions of these detections, without those that are neither right nor wrong, (S,).
    object_of: the object of the same class that each finds, -1 for none, (S,).
    confused_with: of those that find none: the object of another class in its place, -1, (S,).
    positives: positions of the objects that are to be found, (Q,).
    is_found, is_confused: what became of each of these, (Q,).
    """

    min_score: float
    shown: NDArray[np.int64]
    object_of: NDArray[np.int64]
    confused_with: NDArray[np.int64]
    positives: NDArray[np.int64]
    is_found: NDArray[np.bool_]
    is_confused: NDArray[np.bool_]


def assign_outcomes(matches: Matches, min_score: float) -> Outcomes:
    """Sort detections and objects at a bound of the score.

    Weaker detections choose after stronger ones, so they change nothing in the matches.
    """
    shown = np.flatnonzero((matches.score >= min_score) & ~matches.is_detection_ignored[0])
    object_of = matches.matched[0][shown]
    is_taken = np.zeros(len(matches.objects), np.bool_)
    is_taken[object_of[object_of >= 0]] = True
    is_left = np.zeros(len(matches.detections), np.bool_)
    is_left[shown[object_of < 0]] = True
    near = matches.near
    pairs = near.where(
        is_left[near.detection]
        & ~is_taken[near.object]
        & ~matches.is_ignored[near.object]
        & (near.iou >= matches.thresholds[0])
    )
    nothing = np.zeros(len(matches.objects), np.bool_)
    confused = greedy_match(
        pairs,
        turn=_rank_in_image(matches),
        is_crowd=nothing,
        is_ignored=nothing,
        thresholds=matches.thresholds[:1],
    )[0][shown]
    is_confused = np.zeros(len(matches.objects), np.bool_)
    is_confused[confused[confused >= 0]] = True
    positives = np.flatnonzero(~matches.is_ignored)
    return Outcomes(
        min_score,
        shown,
        object_of,
        confused,
        positives,
        is_taken[positives],
        is_confused[positives],
    )


def _rank_in_image(matches: Matches) -> NDArray[np.int64]:
    """Return how many better detections, whatever their class, each has in its image, (D,)."""
    image = matches.detections.image
    order = matches.by_score[np.argsort(image[matches.by_score], kind="stable")]
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - np.searchsorted(image, image[order])
    return rank


def confusion_matrix(matches: Matches, outcomes: Outcomes) -> NDArray[np.int64]:
    """Count what annotated classes (rows) were detected as (columns), (K + 1, K + 1).

    The last row is background that was detected as a class, the last column objects that were not
    detected.
    """
    num = len(matches.category_ids)
    matrix = np.zeros((num + 1, num + 1), np.int64)
    detected = matches.detections.label[outcomes.shown]
    place = np.where(outcomes.object_of >= 0, outcomes.object_of, outcomes.confused_with)
    annotated = np.append(matches.objects.label, num)[place]  # -1 is the last, background
    np.add.at(matrix, (annotated, detected), 1)
    is_missed = ~outcomes.is_found & ~outcomes.is_confused
    missed = matches.objects.label[outcomes.positives[is_missed]]
    matrix[:, num] += np.bincount(missed, minlength=num + 1)
    return matrix


@dataclass(frozen=True, slots=True)
class Found:
    """An object or a detection of an image: its box, and whether the other side has it too.

    box: xyxy in pixels of the image. score: of a detection; None for an object.
    """

    box: tuple[float, float, float, float]
    label: int
    score: float | None
    is_right: bool


@dataclass(frozen=True, slots=True)
class ImageOutcomes:
    """The objects of an image, found or missed, and its detections, best first."""

    image_id: int
    objects: tuple[Found, ...]
    detections: tuple[Found, ...]


def image_outcomes(matches: Matches, outcomes: Outcomes, image: int) -> ImageOutcomes:
    """Gather what became of the objects and detections of one image, given by its position."""
    positives, shown = outcomes.positives, outcomes.shown
    objects = np.flatnonzero(matches.objects.image[positives] == image)
    detections = np.flatnonzero(matches.detections.image[shown] == image)
    detections = detections[np.argsort(-matches.score[shown[detections]], kind="stable")]
    return ImageOutcomes(
        int(matches.image_ids[image]),
        tuple(
            Found(_xyxy(xywh), label, None, is_found)
            for xywh, label, is_found in zip(
                matches.objects.xywh[positives[objects]],
                matches.objects.label[positives[objects]].tolist(),
                outcomes.is_found[objects].tolist(),
                strict=True,
            )
        ),
        tuple(
            Found(_xyxy(xywh), label, score, is_right)
            for xywh, label, score, is_right in zip(
                matches.detections.xywh[shown[detections]],
                matches.detections.label[shown[detections]].tolist(),
                matches.score[shown[detections]].tolist(),
                (outcomes.object_of[detections] >= 0).tolist(),
                strict=True,
            )
        ),
    )


def _xyxy(xywh: NDArray[np.float64]) -> tuple[float, float, float, float]:
    x, y, width, height = xywh.tolist()
    return x, y, x + width, y + height


@dataclass(frozen=True, slots=True)
class ImageCounts:
    """How many objects of each image are found and missed, and how many detections false, (I,)."""

    num_found: NDArray[np.int64]
    num_missed: NDArray[np.int64]
    num_false: NDArray[np.int64]

    def worst(self, most: int) -> NDArray[np.int64]:
        """Return the images with most misses and false detections, worst first; those with any."""
        errors = self.num_missed + self.num_false
        order = np.argsort(-errors, kind="stable")[:most]
        return order[errors[order] > 0]


def image_counts(matches: Matches, outcomes: Outcomes) -> ImageCounts:
    """Count what became of the objects and the detections of each image."""
    num_images = len(matches.image_ids)
    image_of_object = matches.objects.image[outcomes.positives]
    is_false = outcomes.object_of < 0
    return ImageCounts(
        np.bincount(image_of_object[outcomes.is_found], minlength=num_images),
        np.bincount(image_of_object[~outcomes.is_found], minlength=num_images),
        np.bincount(matches.detections.image[outcomes.shown[is_false]], minlength=num_images),
    )
