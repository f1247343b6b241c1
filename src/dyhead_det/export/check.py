"""Whether an ONNX file finds what the detector finds that it was made from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dyhead_det.prediction.detections import Detections
from dyhead_det.prediction.onnx_session import Found, OnnxSession


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What counts as the same object, and how many may have no counterpart.

    Of two candidates that lie upon each other, the better one is kept; where they are equal to
    rounding, either may be, so that a sound file now and then has another box than the detector.

    pixels: of the image that was given, on any side of a box.
    side_share: or of the box's longer side, whichever is more.
    score: between two scores.
    min_score: weaker objects need no counterpart.
    unpaired_share: of the objects.
    """

    pixels: float
    side_share: float
    score: float
    min_score: float
    unpaired_share: float


TOLERANCES = {
    "float32": Tolerance(0.1, 0, 1e-3, 0, 0.05),
    "float16": Tolerance(1, 0.01, 0.02, 0.1, 0.1),
    "int8": Tolerance(4, 0.2, 0.2, 0.3, 0.25),
}


@dataclass(frozen=True, slots=True)
class Agreement:
    """How two lists of objects agree.

    num_detections: the length of the longer one.
    num_unpaired: objects without a counterpart of the same class within the tolerances.
    box_difference: the largest of all pairs and sides, in pixels.
    score_difference: the largest of all pairs.
    """

    num_detections: int
    num_unpaired: int
    box_difference: float
    score_difference: float

    def is_within(self, tolerance: Tolerance) -> bool:
        """Whether only rounding tells the two apart."""
        return self.num_unpaired <= tolerance.unpaired_share * self.num_detections

    def __add__(self, other: "Agreement") -> "Agreement":
        """Take the objects of two images together."""
        return Agreement(
            self.num_detections + other.num_detections,
            self.num_unpaired + other.num_unpaired,
            max(self.box_difference, other.box_difference),
            max(self.score_difference, other.score_difference),
        )

    def __str__(self) -> str:
        """Report it in one line."""
        unpaired = f"{self.num_unpaired} of them without counterpart, " if self.num_unpaired else ""
        return (
            f"{self.num_detections} objects, {unpaired}boxes within {self.box_difference:.1g} px, "
            f"scores within {self.score_difference:.1g}"
        )


def run_file(path: Path, images: Sequence[Tensor]) -> list[Found]:
    """Let onnxruntime find objects: per image boxes (N, 4), scores (N,) and labels (N,).

    Args:
        path: an ONNX file.
        images: (3, H, W) each, of the type that the file takes.

    Raises:
        ExportError: if onnxruntime cannot run it.
    """
    session = OnnxSession(path, num_threads=torch.get_num_threads())
    return session.detect([image.numpy() for image in images])


def compare(
    expected: Detections,
    boxes: NDArray[np.floating],
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
    tolerance: Tolerance = TOLERANCES["float32"],
) -> Agreement:
    """Pair objects of the same class, the best choosing first.

    Args:
        expected: N objects, best first.
        boxes: (M, 4), in the same pixels.
        scores: (M,).
        labels: (M,).
        tolerance: what counts as the same.
    """
    box_differences, score_differences = [0.0], [0.0]
    is_free = np.ones(len(boxes), dtype=bool)
    is_expected = expected.scores >= tolerance.min_score
    for box, score, label in zip(
        *(each[is_expected] for each in (expected.boxes, expected.scores, expected.labels)),
        strict=True,
    ):
        apart = np.abs(boxes - box).max(axis=1)  # (M,)
        score_apart = np.abs(scores - score)
        pixels = max(tolerance.pixels, tolerance.side_share * (box[2:] - box[:2]).max())
        fits = is_free & (labels == label)
        fits &= (apart <= pixels) & (score_apart <= tolerance.score)
        if fits.any():
            nearest = np.where(fits, apart, np.inf).argmin()
            is_free[nearest] = False
            box_differences.append(float(apart[nearest]))
            score_differences.append(float(score_apart[nearest]))
    num_expected, num_paired = int(is_expected.sum()), len(box_differences) - 1
    # What is only just strong enough in the file may be too weak in the detector.
    num_more = int((is_free & (scores >= tolerance.min_score + tolerance.score)).sum())
    num_unpaired = max(num_expected - num_paired, num_more)
    return Agreement(
        num_paired + num_unpaired, num_unpaired, max(box_differences), max(score_differences)
    )
