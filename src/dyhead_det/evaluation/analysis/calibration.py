"""Calibration: whether detections that score .8 are right in 80 of 100 cases.

Guo et al., "On Calibration of Modern Neural Networks", 2017 (arXiv 1706.04599): a reliability
diagram and its expected calibration error (ECE), here over detections, right at IoU .5.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dyhead_det.evaluation.matching import Matches

NUM_BINS = 10


@dataclass(frozen=True, slots=True)
class Calibration:
    """Detections by score, in `NUM_BINS` equal parts of 0 to 1.

    counts: detections in each part.
    scores, shares_right: mean score and share of right ones in each part; NaN in an empty one.
    error: expected calibration error, the mean distance of the two over the detections; None
        without any.
    """

    counts: NDArray[np.int64]
    scores: NDArray[np.float64]
    shares_right: NDArray[np.float64]
    error: float | None


def calibration(matches: Matches) -> Calibration:
    """Compare the scores of all detections with how many of them are right."""
    is_counted = ~matches.is_detection_ignored[0]
    score, is_true = matches.score[is_counted], matches.is_true[0][is_counted]
    # A score of 1 belongs to the last part; those of other detectors may be no probabilities.
    part = np.minimum((score.clip(0, 1) * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    counts = np.bincount(part, minlength=NUM_BINS)
    with np.errstate(invalid="ignore"):
        scores = np.bincount(part, weights=score, minlength=NUM_BINS) / counts
        shares = np.bincount(part, weights=is_true, minlength=NUM_BINS) / counts
    distance = np.nansum(counts * np.abs(scores - shares))
    return Calibration(
        counts, scores, shares, float(distance / counts.sum()) if len(score) else None
    )
