"""Chosen classes: labels in the order of the names, unknown names with what is near."""

import numpy as np
import pytest

from dyhead_det.data.class_choice import choose_classes
from dyhead_det.data.coco.dataset import load_coco
from dyhead_det.errors import DatasetError

from conftest import draw_tiny_dataset


@pytest.fixture
def dataset(tmp_path):
    """Four images with a square each; no circle."""
    folder = draw_tiny_dataset(tmp_path)
    return load_coco(folder / "train.json", folder / "images", split="train")


def test_labels_follow_the_order_of_the_names(dataset):
    chosen = choose_classes(dataset, ("circle", "square"), option="data.classes")
    assert chosen.categories.names == ("circle", "square")
    assert dataset.labels.tolist() == [0] * 4
    assert chosen.labels.tolist() == [1] * 4
    assert np.array_equal(chosen.boxes, dataset.boxes)


def test_objects_of_other_classes_are_left_out_and_their_images_stay(dataset):
    chosen = choose_classes(dataset, ("circle",), option="data.classes")
    assert (len(chosen), len(chosen.labels), len(chosen.categories)) == (4, 0, 1)


def test_an_unknown_class_is_told_with_what_is_near(dataset):
    expected = (
        r"data.classes: .*no class 'sqare', did you mean 'square'\?; 'x'; it has: square, cir"
    )
    with pytest.raises(DatasetError, match=expected):
        choose_classes(dataset, ("sqare", "x"), option="data.classes")
