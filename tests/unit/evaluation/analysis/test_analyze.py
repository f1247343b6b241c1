"""The analysis as a whole: plain values, and the same bounds with and without it."""

import json

import pytest

from dyhead_det.evaluation.analysis.analyze import analyze, best_min_scores
from dyhead_det.evaluation.coco_scores import evaluate_detections

from made_up_data import CATEGORIES, made_up


def test_an_analysis_is_json_without_nan_and_agrees_with_the_12_numbers():
    truth, detections = made_up(1, num_images=20)
    got = analyze(truth, detections, CATEGORIES)
    plain = json.loads(json.dumps(got.to_plain(), allow_nan=False))
    assert plain["classes"] == ["cat", "dog", "rare"]
    expected = evaluate_detections(truth, detections, CATEGORIES, backend="pycocotools")
    assert got.errors.ap50 == pytest.approx(expected.metrics["AP50"])
    for label, of_class in enumerate(expected.classes):
        if of_class.AP50 is not None:
            assert got.precision_at_recall[0.5][label].mean() == pytest.approx(of_class.AP50)
            assert got.precision_at_recall[0.75][label].mean() == pytest.approx(of_class.AP75)


def test_an_evaluation_has_the_same_bounds_with_and_without_an_analysis():
    truth, detections = made_up(1, num_images=20)
    results = [
        evaluate_detections(
            truth, detections, CATEGORIES, backend="pycocotools", with_analysis=with_analysis
        )
        for with_analysis in (False, True)
    ]
    assert results[0] == results[1]
    assert results[0].analysis is None
    assert results[0].min_scores == results[1].analysis.min_scores()
    assert results[0].min_scores == best_min_scores(truth, detections, CATEGORIES)


def test_nothing_detected_can_be_analyzed():
    truth, _ = made_up(1)
    got = analyze(truth, [], CATEGORIES)
    assert got.min_scores() is None
    assert got.worst  # all objects are missed
    json.dumps(got.to_plain(), allow_nan=False)
