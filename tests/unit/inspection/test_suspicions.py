"""What training takes without a word is noted where it looks odd, and nowhere else."""

import json

import pytest

from dyhead_det.data.coco.dataset import read_coco
from dyhead_det.data.coco.problems import AnnotationProblems
from dyhead_det.inspection.suspicions import add_suspicions


def suspicions(tmp_path, boxes, *, names=("dog",), labels=None, split="val", crowds=()):
    """Return repaired and noted problems of one image of 100 x 80 pixels with these boxes."""
    path = tmp_path / "one.json"
    document = {
        "images": [{"id": 1, "file_name": "one.png", "width": 100, "height": 80}],
        "annotations": [
            {
                "id": number + 1,
                "image_id": 1,
                "category_id": (labels or [0] * len(boxes))[number],
                "bbox": box,
                "iscrowd": int(number in crowds),
            }
            for number, box in enumerate(boxes)
        ],
        "categories": [{"id": label, "name": name} for label, name in enumerate(names)],
    }
    path.write_text(json.dumps(document))
    problems = AnnotationProblems(path)
    add_suspicions(read_coco(tmp_path, problems, split=split), problems)
    return problems.repaired, problems.noted


def only(found, words):
    [items] = [items for kind, items in found.items() if words in kind]
    return items


def test_nothing_odd_gives_nothing(tmp_path):
    assert suspicions(tmp_path, [[1, 2, 30, 40], [50, 10, 20, 30]]) == ({}, {})


def test_tiny_boxes_and_boxes_of_the_whole_image_are_noted(tmp_path):
    boxes = [[1, 2, 3.5, 40], [0, 0, 99, 79], [0, 0, 100, 70], [5, 5, 4, 4]]
    repaired, noted = suspicions(tmp_path, boxes)
    assert repaired == {}
    assert only(noted, "side under 4 pixels") == ["one.png: 1"]
    assert only(noted, "cover their whole image") == ["one.png: 2"]


@pytest.mark.parametrize(("shift", "is_same"), [(1, True), (3, True), (8, False)])
def test_two_boxes_in_one_place_are_one_object(tmp_path, shift, is_same):
    boxes = [[40, 10, 30, 30], [1, 2, 60, 60], [1 + shift, 2, 60, 60]]
    repaired, _ = suspicions(tmp_path, boxes)
    assert [*repaired.values()] == ([["one.png: 2 = 3"]] if is_same else [])
    _, noted = suspicions(tmp_path, boxes, names=("dog", "cat"), labels=[0, 0, 1])
    assert bool([kind for kind in noted if "two classes in one place" in kind]) is is_same


def test_a_crowd_in_the_place_of_an_object_is_none_twice(tmp_path):
    assert suspicions(tmp_path, [[1, 2, 60, 60], [1, 2, 59, 60]], crowds=[1]) == ({}, {})


def test_rare_classes_are_noted_of_training_data_alone(tmp_path):
    boxes = [[number % 80, number % 50, 11, 13] for number in range(60)]
    options = {"names": ("dog", "cat", "Cat ", "cow"), "labels": [1] * 59 + [2]}
    repaired, noted = suspicions(tmp_path, boxes, **options)
    assert only(repaired, "case and spaces") == ["'cat' = 'Cat '"]
    assert only(noted, "without an object") == ["dog", "cow"]
    assert len(noted) == 1
    _, noted = suspicions(tmp_path, boxes, **options, split="train")
    assert only(noted, "fewer than 20") == only(noted, "1/50") == ["Cat  (1)"]
