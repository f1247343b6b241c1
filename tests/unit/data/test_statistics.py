"""Counts of a data set, against a hand-made one."""

import json

from dyhead_det.data.coco.dataset import load_coco
from dyhead_det.data.statistics import count


def test_objects_are_counted_by_class_and_size_and_crowds_apart(tmp_path):
    sizes = [(10, 20), (31, 33), (32, 32), (96, 95), (96, 96), (200, 200)]
    #        small     small     medium    medium    large     large
    document = {
        "images": [
            {"id": 1, "file_name": "a.jpg", "width": 640, "height": 480},
            {"id": 2, "file_name": "b.jpg", "width": 300, "height": 300},
            {"id": 3, "file_name": "c.jpg", "width": 1000, "height": 900},
        ],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 5 + (i == 3), "bbox": [0, 0, w, h]}
            for i, (w, h) in enumerate(sizes, start=1)
        ]
        + [{"id": 9, "image_id": 2, "category_id": 5, "bbox": [0, 0, 9, 9], "iscrowd": 1}],
        "categories": [
            {"id": 5, "name": "cat"},
            {"id": 6, "name": "dog"},
            {"id": 7, "name": "cow"},
        ],
    }
    (tmp_path / "train.json").write_text(json.dumps(document))
    counted = count(load_coco(tmp_path / "train.json", tmp_path, split="train"))
    assert (counted.small, counted.medium, counted.large) == (2, 2, 2)
    assert counted.objects_of_class == {"cat": 5, "dog": 1, "cow": 0}
    assert (counted.num_images, counted.num_objects, counted.num_crowds) == (3, 6, 1)
    assert counted.num_empty == 2  # a crowd is nothing to train on
    assert counted.most_objects == 6
    assert counted.image_sizes == ((300, 300), (640, 480), (1000, 900))
