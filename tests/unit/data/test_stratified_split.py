"""A share of the images: stratified, grouped, and the same for the same names and seed."""

import json

import numpy as np
import pytest

from dyhead_det.data.coco.dataset import load_coco
from dyhead_det.data.stratified_split import held_out
from dyhead_det.errors import DatasetError


def make(folder, classes_of_image, names=None, num_classes=3):
    """Images with an object of each of the classes that are given for it."""
    names = names or [f"{index:04d}.jpg" for index in range(len(classes_of_image))]
    images = [
        {"id": index, "file_name": name, "width": 64, "height": 64}
        for index, name in enumerate(names, start=1)
    ]
    annotations = [
        {"image_id": index, "category_id": label, "bbox": [4 * label, 1, 9, 9]}
        for index, labels in enumerate(classes_of_image, start=1)
        for label in labels
    ]
    content = {
        "images": images,
        "annotations": [{"id": i, **a} for i, a in enumerate(annotations, start=1)],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(num_classes)],
    }
    (folder / "a.json").write_text(json.dumps(content))
    return load_coco(folder / "a.json", folder, split="train")


@pytest.fixture
def mixed(tmp_path):
    """200 images: class 0 in all, class 1 in 50, class 2 in 10; and 40 empty ones."""
    classes = [[0] + [1] * (i % 4 == 0) + [2] * (i % 20 == 0) for i in range(200)] + [[]] * 40
    return make(tmp_path, classes)


def test_every_class_and_the_empty_images_are_shared_alike(mixed):
    flags = held_out(mixed, 0.2)
    numbers = np.diff(mixed.offsets)
    assert flags.sum() == 48  # 240 / 5
    assert flags[numbers == 0].sum() == 8
    shows = [flags[[(mixed.target(i)["labels"] == k).any() for i in range(240)]] for k in range(3)]
    assert [part.sum() for part in shows] == [40, 10, 2]


def test_the_choice_follows_names_and_seed_and_not_the_order_of_the_file(mixed, tmp_path):
    classes = [mixed.target(i)["labels"].tolist() for i in range(len(mixed))]
    order = np.random.default_rng(1).permutation(len(mixed))
    (tmp_path / "other").mkdir()
    shuffled = make(
        tmp_path / "other", [classes[i] for i in order], [mixed.file_names[i] for i in order]
    )
    flags = held_out(mixed, 0.2, seed=3)
    assert np.array_equal(held_out(shuffled, 0.2, seed=3), flags[order])
    assert not np.array_equal(held_out(mixed, 0.2, seed=4), flags)


def test_groups_stay_together(tmp_path):
    names = [f"video{i // 10:02d}_{i % 10}.jpg" for i in range(200)]
    dataset = make(tmp_path, [[0]] * 200, names)
    for pattern in (r"video\d+", r"(\d+)_"):
        flags = held_out(dataset, 0.25, group=pattern).reshape(20, 10)
        assert (flags.all(axis=1) == flags.any(axis=1)).all()
        assert flags.sum() == 50
    with pytest.raises(DatasetError, match=r"pattern clip is found in no file name, such as video"):
        held_out(dataset, 0.25, group="clip")


def test_the_only_image_of_a_class_is_there_to_be_learned_from(tmp_path):
    dataset = make(tmp_path, [[0]] * 9 + [[0, 1]])
    assert not held_out(dataset, 0.2)[9]


def test_no_side_is_empty(tmp_path):
    dataset = make(tmp_path, [[0, 1], [0], [0]])
    assert held_out(dataset, 0.01).tolist() == [False, True, False]
    assert held_out(dataset, 0.99).sum() == 2
    with pytest.raises(DatasetError, match=r"no share can be taken of 1 image; both sides need"):
        held_out(make(tmp_path, [[0]]), 0.1)
