"""Precision and recall against pycocotools' own arrays, and against counting in loops."""

import contextlib
import io

import numpy as np
import pytest

from dyhead_det.evaluation.analysis.curves import (
    SCORES,
    min_scores,
    precision_recall_curves,
    score_curve,
    score_curves,
)
from dyhead_det.evaluation.backends import build_evaluation
from dyhead_det.evaluation.matching import match

from made_up_data import made_up


@pytest.mark.parametrize("seed", range(4))
def test_precision_over_recall_is_the_array_of_pycocotools(seed):
    truth, detections = made_up(seed, num_images=15)
    _, evaluation = build_evaluation(truth, detections, "pycocotools")
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # (T, R, K)
    matches = match(truth, detections)
    for threshold in (0, 5):
        got = precision_recall_curves(matches, threshold)
        asked = [k for k in range(3) if precision[0, 0, k] > -1]
        assert list(got) == asked
        for label in asked:
            np.testing.assert_allclose(got[label], precision[threshold, :, label], atol=1e-12)


def counted(scores, is_true, num_objects, bound):
    true = sum(t for s, t in zip(scores, is_true, strict=True) if s >= bound)
    seen = sum(s >= bound for s in scores)
    return true / seen if seen else np.nan, true / num_objects, 2 * true / (seen + num_objects)


@pytest.mark.parametrize("seed", range(5))
def test_precision_recall_and_f1_over_the_score_are_those_of_counting(seed):
    random = np.random.default_rng(seed)
    scores = np.sort(random.uniform(size=30).round(1))[::-1]  # many are equal
    is_true = random.uniform(size=30) < scores
    curve = score_curve(scores, is_true, 25)
    expected = np.array([counted(scores, is_true, 25, bound) for bound in SCORES])
    np.testing.assert_allclose(
        np.stack([curve.precision, curve.recall, curve.f1], axis=1), expected, atol=1e-12
    )
    best = max(counted(scores, is_true, 25, bound)[2] for bound in scores)
    at_bound = counted(scores, is_true, 25, curve.best.min_score)
    assert at_bound == pytest.approx((curve.best.precision, curve.best.recall, curve.best.f1))
    assert curve.best.f1 == pytest.approx(best)


def test_the_best_bound_lies_between_two_scores():
    curve = score_curve(np.array([0.9, 0.7, 0.3]), np.array([True, True, False]), 2)
    assert curve.best.min_score == pytest.approx(0.5)
    assert (curve.best.precision, curve.best.recall, curve.best.f1) == (1, 1, 1)


def test_a_class_without_a_bound_of_its_own_takes_that_of_all():
    truth, detections = made_up(0, num_images=15)
    detections = [each for each in detections if each["category_id"] != 9]
    overall, of_classes = score_curves(match(truth, detections))
    bounds = min_scores(overall, of_classes)
    assert bounds[0] == of_classes[0].best.min_score
    assert bounds[2] == overall.best.min_score


def test_nothing_right_has_no_bound():
    truth, _ = made_up(0)
    overall, of_classes = score_curves(match(truth, []))
    assert overall.best is None
    assert min_scores(overall, of_classes) is None
    assert np.isnan(overall.precision).all()
