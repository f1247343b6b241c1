"""Whether an ONNX file finds what the detector finds that it was made from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dyhead_det.errors import ExportError
from dyhead_det.export.onnx_graph import INPUT
from dyhead_det.prediction.detections import Detections

BOX_TOLERANCE = 0.1
"""Pixels of the image that was given."""
SCORE_TOLERANCE = 1e-3
# Of two candidates that lie upon each other, the better one is kept; where they are equal to
# rounding, either may be, so that a sound file now and then has another box than the detector.
UNPAIRED_SHARE = 0.05


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

    @property
    def is_close(self) -> bool:
        """Whether only rounding tells the two apart."""
        return self.num_unpaired <= UNPAIRED_SHARE * self.num_detections

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


def run_file(path: Path, images: Sequence[Tensor]) -> list[tuple[NDArray[np.generic], ...]]:
    """Let onnxruntime find objects: per image boxes (N, 4), scores (N,) and labels (N,).

    Args:
        path: an ONNX file.
        images: (3, H, W) each, of the type that the file takes.

    Raises:
        ExportError: if onnxruntime cannot run it.
    """
    import onnxruntime  # noqa: PLC0415 - an extra

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # nothing beside the error below
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return [tuple(session.run(None, {INPUT: image.numpy()})) for image in images]
    except Exception as error:  # onnxruntime's errors have no other base in common
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(
            f"onnxruntime {onnxruntime.__version__} (1.25 or newer is needed) cannot run the "
            f"exported detector: {reason}"
        ) from error


def compare(
    expected: Detections,
    boxes: NDArray[np.generic],
    scores: NDArray[np.generic],
    labels: NDArray[np.generic],
) -> Agreement:
    """Pair objects of the same class, the best choosing first.

    Args:
        expected: N objects.
        boxes: (M, 4), in the same pixels.
        scores: (M,).
        labels: (M,).
    """
    box_differences, score_differences = [0.0], [0.0]
    is_free = np.ones(len(boxes), dtype=bool)
    for box, score, label in zip(expected.boxes, expected.scores, expected.labels, strict=True):
        apart = np.abs(boxes - box).max(axis=1)  # (M,)
        score_apart = np.abs(scores - score)
        fits = is_free & (labels == label)
        fits &= (apart <= BOX_TOLERANCE) & (score_apart <= SCORE_TOLERANCE)
        if fits.any():
            nearest = np.where(fits, apart, np.inf).argmin()
            is_free[nearest] = False
            box_differences.append(float(apart[nearest]))
            score_differences.append(float(score_apart[nearest]))
    num_detections = max(len(boxes), len(expected))
    num_paired = len(box_differences) - 1
    return Agreement(
        num_detections, num_detections - num_paired, max(box_differences), max(score_differences)
    )
