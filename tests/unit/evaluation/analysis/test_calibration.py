"""Scores against shares of right detections."""

import numpy as np
import pytest

from dyhead_det.evaluation.analysis.calibration import calibration
from dyhead_det.evaluation.matching import match

from made_up_data import made_up


def test_the_error_is_the_mean_distance_of_score_and_share():
    truth, detections = made_up(3, num_images=30, crowds=0.2)
    matches = match(truth, detections)
    got = calibration(matches)
    points = [
        (score, is_true)
        for score, is_true, neither in zip(
            matches.score, matches.is_true[0], matches.is_detection_ignored[0], strict=True
        )
        if not neither
    ]
    expected = 0.0
    for number in range(10):
        inside = [p for p in points if number / 10 <= p[0] < (number + 1) / 10]
        assert got.counts[number] == len(inside)
        mean_score, share = np.mean(inside, axis=0)
        assert (got.scores[number], got.shares_right[number]) == pytest.approx((mean_score, share))
        expected += len(inside) / len(points) * abs(mean_score - share)
    assert got.error == pytest.approx(expected)


def test_a_score_of_one_counts_and_nothing_detected_has_no_error():
    truth, _ = made_up(0)
    one = {"image_id": 1, "category_id": 3, "bbox": [500, 500, 5, 5], "score": 1.0}
    got = calibration(match(truth, [one]))
    assert got.counts.tolist() == [0] * 9 + [1]
    assert got.error == 1
    assert calibration(match(truth, [])).error is None
