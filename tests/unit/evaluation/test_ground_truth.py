"""Detections must belong to the ground truth, and what limits the numbers is noted."""

import pytest

from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.errors import DatasetError
from dyhead_det.evaluation.coco_scores import evaluate_detections
from dyhead_det.evaluation.ground_truth import crowding_notes, require_known

CATS = CategoryMap((Category("cat", 7),))


def crowd_of(num_objects, *, category_ids=(7,), image_id=1):
    """Ground truth of one image with objects side by side, 15 x 15 pixels each."""
    annotations = [
        {
            "id": i + 1,
            "image_id": image_id,
            "category_id": category_ids[i % len(category_ids)],
            "bbox": [i % 15 * 20, i // 15 * 20, 15, 15],
            "area": 225,
            "iscrowd": 0,
        }
        for i in range(num_objects)
    ]
    return {
        "images": [{"id": image_id}],
        "categories": [{"id": 7, "name": "cat"}],
        "annotations": annotations,
    }


def all_found(ground_truth):
    return [
        {**{key: line[key] for key in ("image_id", "category_id", "bbox")}, "score": 0.9}
        for line in ground_truth["annotations"]
    ]


@pytest.mark.parametrize("backend", ["pycocotools", "faster-coco-eval"])
def test_more_than_a_hundred_objects_are_noted_and_counted_on_request(backend):
    """100 of 150 objects can be found, all rightly: precision 1 up to recall .66, 67 / 101."""
    truth = crowd_of(150)
    found = all_found(truth)
    standard = evaluate_detections(truth, found, CATS, backend=backend)
    assert standard.ap == pytest.approx(67 / 101)
    assert "more than 100 objects of a class: 1, with up to 150" in standard.notes[0]
    assert "eval.max_detections" in standard.notes[0]
    raised = evaluate_detections(truth, found, CATS, backend=backend, max_detections=150)
    assert raised.ap == pytest.approx(1)
    assert raised.metrics["AR150"] == pytest.approx(1)
    assert "AR100" not in raised.metrics
    assert raised.notes == ()


def test_a_limit_below_cocos_counts_of_recall_is_refused():
    with pytest.raises(ValueError, match="max_detections"):
        evaluate_detections(crowd_of(1), [], CATS, backend="auto", max_detections=10)


def test_the_detectors_own_limit_is_noted_where_images_hold_more_objects():
    notes = crowding_notes(
        crowd_of(120, category_ids=(7, 8)), max_detections=100, detections_per_image=100
    )
    assert len(notes) == 1
    assert "raise its detections_per_img, which is 100" in notes[0]
    assert crowding_notes(crowd_of(100), max_detections=100, detections_per_image=100) == []


def test_crowd_regions_are_no_objects_that_could_be_too_many():
    truth = crowd_of(150)
    for line in truth["annotations"]:
        line["iscrowd"] = 1
    assert crowding_notes(truth, max_detections=100, detections_per_image=100) == []


def test_detections_of_unknown_images_and_categories_are_one_error():
    truth = crowd_of(1)
    (found,) = all_found(truth)
    detections = [found, {**found, "image_id": 99}, {**found, "category_id": 5}]
    with pytest.raises(DatasetError) as error:
        require_known(truth, detections)
    assert "1 of 3 detections are of images that the ground truth does not have (image_id 99)" in (
        str(error.value)
    )
    assert "of categories that the ground truth does not have (category_id 5)" in str(error.value)
    with pytest.raises(DatasetError):
        evaluate_detections(truth, detections, CATS, backend="auto")
