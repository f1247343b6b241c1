"""Data are scored with the classes of the detector, whatever else their file lists."""

import json
import logging

import pytest

from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.data.coco.alignment import aligned_to
from dyhead_det.data.coco.dataset import load_coco
from dyhead_det.errors import DatasetError


def classes(*names):
    return CategoryMap(tuple(Category(name, 10 * n) for n, name in enumerate(names, start=1)))


@pytest.fixture
def dataset(tmp_path):
    """Two images; classes dog (id 1), cat (2) and cow (30), of which the cow has no box."""
    content = {
        "images": [
            {"id": number, "file_name": f"{number}.png", "width": 100, "height": 50}
            for number in (1, 2)
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40]},
            {"id": 2, "image_id": 1, "category_id": 2, "bbox": [2, 2, 30, 40]},
            {"id": 3, "image_id": 2, "category_id": 2, "bbox": [3, 2, 30, 40]},
        ],
        "categories": [
            {"id": 1, "name": "dog"},
            {"id": 2, "name": "cat"},
            {"id": 30, "name": "cow"},
        ],
    }
    (tmp_path / "val.json").write_text(json.dumps(content))
    return load_coco(tmp_path / "val.json", tmp_path, split="val")


def test_equal_classes_need_nothing(dataset, caplog):
    assert aligned_to(dataset, dataset.categories) is dataset
    assert caplog.messages == []


def test_labels_follow_the_names_in_the_order_of_the_detector(dataset, caplog):
    aligned = aligned_to(dataset, classes("cow", "cat", "dog"))
    assert aligned.labels.tolist() == [2, 1, 1]
    assert aligned.categories.names == ("cow", "cat", "dog")
    # The ids stay those of the file: detections are written with them.
    assert [category.dataset_id for category in aligned.categories] == [30, 2, 1]
    assert caplog.messages == []


def test_a_class_that_the_file_does_not_list_has_no_objects(dataset, caplog):
    with caplog.at_level(logging.WARNING):
        aligned = aligned_to(dataset, classes("ring", "dog", "cat", "cow", "disc"))
    assert aligned.labels.tolist() == [1, 2, 2]
    ids = [category.dataset_id for category in aligned.categories]
    assert ids[1:4] == [1, 2, 30]
    assert len(set(ids)) == 5
    truth = aligned.ground_truth()
    assert {category["name"] for category in truth["categories"]} == {
        *("ring", "dog", "cat", "cow", "disc")
    }
    assert [found["category_id"] for found in truth["annotations"]] == [1, 2, 2]
    (message,) = caplog.messages
    assert "val.json does not list 2 of the detector's 5 classes" in message
    assert "ring, disc" in message


def test_objects_of_other_classes_are_left_out_and_counted(dataset, caplog):
    with caplog.at_level(logging.WARNING):
        aligned = aligned_to(dataset, classes("dog"))
    assert aligned.labels.tolist() == [0]
    assert len(aligned) == 2
    assert [len(aligned.target(index)["boxes"]) for index in range(2)] == [1, 0]
    (message,) = caplog.messages
    assert "val.json lists classes that the detector does not have" in message
    assert "cat (2 boxes), cow (0 boxes)" in message


def test_no_class_in_common_is_refused_with_both_lists(dataset):
    with pytest.raises(DatasetError, match=r"val.json has none .*dog, cat, cow.*ring, disc"):
        aligned_to(dataset, classes("ring", "disc"))
