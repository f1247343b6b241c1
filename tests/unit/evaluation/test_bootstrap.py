"""AP on resampled images against the evaluator itself, run on copies of the images."""

import numpy as np
import pytest

from dyhead_det.evaluation.bootstrap import (
    average_precisions,
    interval,
    match_detections,
    resample_images,
)
from dyhead_det.evaluation.coco_scores import evaluate_detections

from made_up_data import CATEGORIES, made_up

NUM_IMAGES = 7


def copied(truth, detections, counts):
    """Return a data set that really holds every image as often as it counts."""
    images, annotations, results = [], [], []
    for image, count in zip(truth["images"], counts, strict=True):
        for _ in range(count):
            new_id = len(images) + 1
            images.append({"id": new_id})
            annotations += [
                {**each, "image_id": new_id}
                for each in truth["annotations"]
                if each["image_id"] == image["id"]
            ]
            results += [
                {**each, "image_id": new_id}
                for each in detections
                if each["image_id"] == image["id"]
            ]
    return {**truth, "images": images, "annotations": annotations}, results


@pytest.mark.parametrize("seed", range(4))
def test_ap_is_that_of_the_evaluator_on_the_images_and_on_copies_of_them(seed):
    truth, detections = made_up(seed)
    classes = match_detections(truth, detections)
    counts = np.concatenate(
        [np.ones((1, NUM_IMAGES), dtype=int), resample_images(NUM_IMAGES, 4, seed=seed)]
    )
    got = average_precisions(classes, counts)
    for of_resample, aps in zip(counts, got, strict=True):
        expected = evaluate_detections(
            *copied(truth, detections, of_resample), CATEGORIES, backend="pycocotools"
        )
        assert aps.mean() == pytest.approx(expected.metrics["AP"], abs=1e-9)
        assert aps[0] == pytest.approx(expected.metrics["AP50"], abs=1e-9)


def test_no_detection_is_an_ap_of_zero_and_no_ground_truth_is_none():
    truth, _ = made_up(0)
    aps = average_precisions(match_detections(truth, []), np.eye(NUM_IMAGES, dtype=int))
    annotated = {each["image_id"] for each in truth["annotations"] if not each["iscrowd"]}
    for image_id, of_image in enumerate(aps, start=1):
        expected = 0 if image_id in annotated else np.nan
        np.testing.assert_array_equal(of_image, np.full(10, expected))


def test_resamples_draw_as_many_images_as_there_are_and_the_same_for_the_same_seed():
    counts = resample_images(5, 100, seed=3)
    assert counts.shape == (100, 5)
    assert (counts.sum(axis=1) == 5).all()
    np.testing.assert_array_equal(counts, resample_images(5, 100, seed=3))


def test_an_interval_holds_its_share():
    assert interval(np.arange(101.0), level=0.9) == pytest.approx((5, 95))
