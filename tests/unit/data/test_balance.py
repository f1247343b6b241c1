"""How often images come, against numbers worked out by hand."""

import json

import numpy as np
import pytest

from dyhead_det.data.balance import aspect_ratio_groups, class_balanced_counts, repeat_factors
from dyhead_det.data.coco.dataset import load_coco


@pytest.fixture
def dataset(tmp_path):
    """Ten images: 8 with class a, 2 with class b (one has both), 1 with a crowd of b alone."""
    classes = [[1], [1], [1], [1], [1], [1], [1], [1, 2, 2], [2], []]
    sizes = [(40, 30), (30, 40), (30, 30)] + 7 * [(50, 40)]
    box = {"bbox": [1, 1, 9, 9]}
    annotations = [
        {"id": 0, "image_id": index, "category_id": class_id, "iscrowd": 0, **box}
        for index, class_ids in enumerate(classes)
        for class_id in class_ids
    ]
    annotations.append({"id": 0, "image_id": 9, "category_id": 2, "iscrowd": 1, **box})
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    document = {
        "images": [
            {"id": index, "file_name": f"{index}.png", "width": width, "height": height}
            for index, (width, height) in enumerate(sizes)
        ],
        "annotations": annotations,
        "categories": [{"id": n, "name": name} for n, name in enumerate("abc", start=1)],
    }
    (tmp_path / "a.json").write_text(json.dumps(document))
    return load_coco(tmp_path / "a.json", tmp_path, split="train")


def test_images_of_rare_classes_are_repeated_by_the_root_of_their_rarity(dataset):
    """Class a is in 8 of 10 images, b in 2, c in none."""
    rare = np.sqrt(0.5 / 0.2)
    expected = [1, 1, 1, 1, 1, 1, 1, rare, rare, 1]
    np.testing.assert_allclose(repeat_factors(dataset, threshold=0.5), expected)


def test_nothing_is_repeated_where_no_class_is_rare(dataset):
    np.testing.assert_array_equal(repeat_factors(dataset, threshold=0.001), np.ones(10))


def test_classes_are_balanced_and_empty_images_come_once(dataset):
    """Nine images answer for two classes: 4.5 for a by its 8 images, 4.5 for b by its 2."""
    only_a, only_b = 4.5 / 8, 4.5 / 2
    expected = 7 * [only_a] + [only_a + only_b, only_b, 1]
    np.testing.assert_allclose(class_balanced_counts(dataset), expected)
    assert class_balanced_counts(dataset).sum() == pytest.approx(len(dataset))


def test_wide_images_are_one_group_and_all_others_another(dataset):
    assert aspect_ratio_groups(dataset).tolist() == [1, 0, 0] + 7 * [1]
