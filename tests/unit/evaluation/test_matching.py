"""Matches of a whole data set at once are those that pycocotools makes in loops."""

import contextlib
import io

import numpy as np
import pytest

from dyhead_det.evaluation.backends import build_evaluation
from dyhead_det.evaluation.matching import IOU_THRESHOLDS, match

from made_up_data import made_up


def of_pycocotools(truth, detections, max_detections=100):
    """By class: scores, whether matched and whether ignored (T, D), best first; number of boxes."""
    _, evaluation = build_evaluation(truth, detections, "pycocotools")
    evaluation.params.areaRng = evaluation.params.areaRng[:1]
    evaluation.params.maxDets = [max_detections]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
    num_images, per_image = len(truth["images"]), evaluation.evalImgs
    for start in range(0, len(per_image), num_images):
        images = [each for each in per_image[start : start + num_images] if each]
        scores = np.array([score for each in images for score in each["dtScores"]])
        order = np.argsort(-scores, kind="mergesort")
        matched, ignored = (
            np.concatenate([np.zeros((10, 0)), *(each[name] for each in images)], axis=1)[:, order]
            for name in ("dtMatches", "dtIgnore")
        )
        num_boxes = sum(int(np.sum(np.array(each["gtIgnore"]) == 0)) for each in images)
        yield scores[order], matched > 0, ignored > 0, num_boxes


# Rounded boxes and scores have many ties, and objects that are there twice.
@pytest.mark.parametrize("decimals", [None, -1])
@pytest.mark.parametrize("max_detections", [100, 2])
@pytest.mark.parametrize("seed", range(8))
def test_matches_are_those_of_pycocotools(seed, max_detections, decimals):
    truth, detections = made_up(seed, num_images=9, crowds=0.2, decimals=decimals)
    got = match(truth, detections, max_detections=max_detections)
    expected = list(of_pycocotools(truth, detections, max_detections))
    assert len(expected) == len(got.category_ids)
    for rows, number, (scores, is_matched, is_ignored, num_boxes) in zip(
        got.best_first(), got.objects_of_class(), expected, strict=True
    ):
        np.testing.assert_array_equal(got.score[rows], scores)
        np.testing.assert_array_equal(got.matched[:, rows] >= 0, is_matched)
        np.testing.assert_array_equal(got.is_detection_ignored[:, rows], is_ignored)
        np.testing.assert_array_equal(got.is_true[:, rows], is_matched & ~is_ignored)
        assert number == num_boxes


def test_objects_and_detections_beyond_all_sizes_are_ignored_as_in_pycocotools():
    huge = [0, 0, 2e5, 2e5]
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 1}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "bbox": huge, "area": 4e10},
            {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81},
        ],
    }
    detections = [
        {"image_id": 1, "category_id": 1, "bbox": box, "score": score}
        for box, score in ((huge, 0.9), (huge, 0.8), ([0, 0, 9, 9], 0.7))
    ]
    got = match(truth, detections)
    ((_, is_matched, is_ignored, num_boxes),) = of_pycocotools(truth, detections)
    np.testing.assert_array_equal(got.matched >= 0, is_matched)
    np.testing.assert_array_equal(got.is_detection_ignored, is_ignored)
    assert got.objects_of_class().tolist() == [num_boxes] == [1]


def truth_of(*boxes, crowd=False):
    return {
        "images": [{"id": 4}],
        "categories": [{"id": 1}, {"id": 2}],
        "annotations": [
            {"image_id": 4, "category_id": label, "bbox": list(box), "iscrowd": int(crowd)}
            for *box, label in boxes
        ],
    }


def found(*boxes):
    scores = np.linspace(1, 0.5, len(boxes)).tolist()
    return [
        {"image_id": 4, "category_id": label, "bbox": list(box), "score": score}
        for (*box, label), score in zip(boxes, scores, strict=True)
    ]


def test_an_object_is_found_once_and_by_its_own_class():
    truth = truth_of((0, 0, 10, 10, 1), (50, 50, 10, 10, 2))
    got = match(truth, found((0, 0, 10, 9, 1), (0, 0, 10, 10, 1), (50, 50, 10, 10, 1)))
    assert got.matched[0].tolist() == [0, -1, -1]


def test_half_an_overlap_is_enough_and_less_is_not():
    assert match(truth_of((0, 0, 10, 10, 1)), found((0, 0, 10, 5, 1))).matched[0].tolist() == [0]
    assert match(truth_of((0, 0, 10, 10, 1)), found((0, 0, 10, 4, 1))).matched[0].tolist() == [-1]


def test_detections_in_a_crowd_of_their_class_are_neither_right_nor_wrong():
    inside, other, half = (10, 10, 10, 10, 1), (10, 10, 10, 10, 2), (95, 0, 10, 10, 1)
    got = match(truth_of((0, 0, 100, 100, 1), crowd=True), found(inside, half, inside, other))
    assert got.is_detection_ignored[0].tolist() == [True, True, True, False]
    assert got.objects_of_class().tolist() == [0, 0]


def test_nothing_annotated_and_nothing_detected_is_no_error():
    assert match(truth_of(), []).matched.shape == (10, 0)
    assert match(truth_of((0, 0, 1, 1, 1)), []).objects_of_class().tolist() == [1, 0]
    assert match(truth_of(), found((0, 0, 1, 1, 1))).matched[0].tolist() == [-1]


def test_labels_are_in_the_order_that_is_asked_for_and_other_classes_are_left_out():
    truth = truth_of((0, 0, 10, 10, 1), (50, 50, 10, 10, 2))
    detections = found((0, 0, 10, 10, 1), (50, 50, 10, 10, 2))
    assert match(truth, detections, category_ids=[2, 1]).detections.label.tolist() == [0, 1]
    alone = match(truth, detections, category_ids=[2])
    assert alone.score.tolist() == [0.5]
    assert alone.objects_of_class().tolist() == [1]


def test_blocks_of_pairs_are_as_good_as_one(monkeypatch):
    truth, detections = made_up(1, num_images=20)
    whole = match(truth, detections)
    monkeypatch.setattr("dyhead_det.evaluation.matching._BLOCK", 3)
    np.testing.assert_array_equal(match(truth, detections).matched, whole.matched)


def test_thresholds_are_those_of_coco():
    np.testing.assert_allclose(IOU_THRESHOLDS, np.arange(0.5, 1, 0.05))
