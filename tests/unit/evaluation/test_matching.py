"""Hits, misses and false detections of an image are those that COCO counts at IoU .5."""

import numpy as np
import pytest
import torch

from dyhead_det.evaluation.bootstrap import match_detections
from dyhead_det.evaluation.matching import match_image


def target(*rows):
    """From (x1, y1, x2, y2, label) rows."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
    return {"boxes": table[:, :4], "labels": table[:, 4].long()}


def match(truth, detected, crowds=()):
    prediction = {**target(*detected), "scores": torch.linspace(1, 0.5, len(detected))}
    return tuple(flags.tolist() for flags in match_image(truth, prediction, target(*crowds)))


def test_an_object_is_found_once_and_by_its_own_class():
    truth = target((0, 0, 10, 10, 0), (50, 50, 60, 60, 1))
    detected = [(0, 0, 10, 9, 0), (0, 0, 10, 10, 0), (50, 50, 60, 60, 0)]
    assert match(truth, detected) == ([True, False, False], [False] * 3, [True, False])


def test_of_two_objects_the_nearer_one_is_found():
    truth = target((0, 0, 10, 10, 0), (2, 0, 12, 10, 0))
    assert match(truth, [(2, 0, 12, 10, 0)])[2] == [False, True]


def test_half_an_overlap_is_enough_and_less_is_not():
    truth = target((0, 0, 10, 10, 0))
    assert match(truth, [(0, 0, 10, 5, 0)])[0] == [True]  # IoU 50 / 100
    assert match(truth, [(0, 0, 10, 4, 0)])[0] == [False]


def test_detections_in_a_crowd_of_their_class_are_neither_right_nor_wrong():
    crowd = [(0, 0, 100, 100, 0)]
    detected = [(10, 10, 20, 20, 0), (10, 10, 20, 20, 1), (95, 0, 105, 10, 0), (96, 0, 106, 9, 0)]
    assert match(target(), detected, crowd)[1] == [True, False, True, False]


def test_nothing_annotated_and_nothing_detected_is_no_error():
    assert match(target(), []) == ([], [], [])
    assert match(target((0, 0, 1, 1, 0)), []) == ([], [], [False])
    assert match(target(), [(0, 0, 1, 1, 0)]) == ([False], [False], [])


@pytest.mark.parametrize("seed", range(5))
def test_as_many_are_right_as_pycocotools_matches(seed):
    random = np.random.default_rng(seed)
    boxes = np.concatenate([random.integers(0, 60, (20, 2)), random.integers(20, 60, (20, 2))], 1)
    labels = random.integers(0, 2, (20, 1))
    moved = boxes + random.integers(-8, 9, boxes.shape)
    best_first = random.permutation(20)
    ground_truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}],
        "annotations": [
            {"image_id": 1, "category_id": label, "bbox": box}
            for label, box in zip(labels[:, 0].tolist(), boxes.tolist(), strict=True)
        ],
    }
    detections = [
        {
            "image_id": 1,
            "category_id": int(labels[i, 0]),
            "bbox": moved[i].tolist(),
            "score": 1 - place / 20,
        }
        for place, i in enumerate(best_first)
    ]
    of_coco = [int(each.is_true[0].sum()) for each in match_detections(ground_truth, detections)]
    rows, detected = (
        np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:], labels], axis=1)
        for xywh in (boxes, moved)
    )
    is_right, _, _ = match(target(*rows.tolist()), detected[best_first].tolist())
    ours = [sum(np.array(is_right)[labels[best_first, 0] == label]) for label in (0, 1)]
    assert ours == of_coco
    assert 0 < sum(ours) < 20
