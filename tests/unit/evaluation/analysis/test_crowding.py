"""AP of images with few and many objects is that of these images alone."""

import pytest

from dyhead_det.evaluation.analysis.crowding import ap_by_crowding
from dyhead_det.evaluation.coco_scores import evaluate_detections
from dyhead_det.evaluation.matching import match

from made_up_data import CATEGORIES, made_up


def test_groups_have_the_ap_of_the_evaluator_on_their_images():
    truth, detections = made_up(5, num_images=40)
    objects = {image["id"]: 0 for image in truth["images"]}
    for each in truth["annotations"]:
        objects[each["image_id"]] += not each["iscrowd"]
    groups = ap_by_crowding(match(truth, detections))
    assert [group.name for group in groups] == ["1", "2 to 4", "5 to 9"]
    for group, (least, most) in zip(groups, ((1, 1), (2, 4), (5, 9)), strict=True):
        ids = {image_id for image_id, number in objects.items() if least <= number <= most}
        part = {
            **truth,
            "images": [image for image in truth["images"] if image["id"] in ids],
            "annotations": [a for a in truth["annotations"] if a["image_id"] in ids],
        }
        results = [each for each in detections if each["image_id"] in ids]
        expected = evaluate_detections(part, results, CATEGORIES, backend="pycocotools")
        assert group.num_images == len(ids)
        assert group.num_objects == sum(objects[image_id] for image_id in ids)
        assert pytest.approx(expected.metrics["AP"]) == group.AP
        assert pytest.approx(expected.metrics["AP50"]) == group.AP50
