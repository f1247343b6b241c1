"""A preview shows images with the boxes that are asked for, as annotated or as trained on."""

import json

import numpy as np
import pytest
import yaml

from dyhead_det.config.schema import to_plain
from dyhead_det.data.coco.dataset import load_coco
from dyhead_det.errors import DatasetError
from dyhead_det.inspection.preview import choose_images, draw_preview
from dyhead_det.inspection.targets import read_target
from dyhead_det.visualize.draw import class_color

from conftest import draw_tiny_dataset, make_config


@pytest.fixture
def folder(tmp_path):
    """Five pictures with a square each; the last two squares are called circles."""
    folder = draw_tiny_dataset(tmp_path / "tiny", num_images=5)
    content = json.loads((folder / "train.json").read_text())
    for record in content["annotations"][-2:]:
        record["category_id"] = 11
    (folder / "train.json").write_text(json.dumps(content))
    return folder


def preview(folder, *, overrides=(), **options):
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(to_plain(make_config(folder))))
    target = read_target(path, overrides=overrides)
    options = {"number": 4, "seed": 0, **options}
    return np.asarray(draw_preview(target, "train", **options))


def num_pixels(sheet, label):
    return int((sheet == class_color(label)).all(axis=2).sum())


def test_images_are_chosen_by_seed_and_by_class_in_turn(folder):
    dataset = load_coco(folder / "train.json", folder / "images", split="train")
    options = {"number": 4, "by_class": False}
    first = choose_images(dataset, seed=0, **options)
    assert first == choose_images(dataset, seed=0, **options)
    assert len(set(first)) == 4
    assert first != choose_images(dataset, seed=1, **options)
    in_turn = choose_images(dataset, number=9, seed=0, by_class=True)
    assert sorted(in_turn) == [*range(5)]
    assert [index >= 3 for index in in_turn] == [False, True, False, True, False]


def test_only_the_classes_that_are_asked_for_are_drawn(folder):
    both = preview(folder, number=5)
    assert min(num_pixels(both, 0), num_pixels(both, 1)) > 1000
    one = preview(folder, number=5, classes=["circle"])
    assert num_pixels(one, 0) > 1000  # it is the only class now
    assert one.shape[0] < both.shape[0]  # two pictures, one row
    with pytest.raises(DatasetError, match=r"--classes: .* has no class 'circel', did you mean"):
        preview(folder, classes=["circel"])


def test_an_augmented_preview_is_what_the_detector_gets(folder):
    plain = preview(folder, is_augmented=True, overrides=["data.augment.horizontal_flip=0"])
    flipped = preview(folder, is_augmented=True, overrides=["data.augment.horizontal_flip=1.0"])
    # The whole sheet: pictures of 64 pixels, not padded, in tiles of one size.
    assert plain.shape == flipped.shape
    assert not np.array_equal(plain, flipped)
    assert num_pixels(plain, 0) > 1000
    again = preview(folder, is_augmented=True, overrides=["data.augment.horizontal_flip=1.0"])
    np.testing.assert_array_equal(flipped, again)


@pytest.mark.parametrize("is_augmented", [False, True])
def test_images_that_cannot_be_read_are_left_out(folder, is_augmented):
    for number in range(4):
        (folder / "images" / f"{number}.png").write_bytes(b"")
    assert preview(folder, number=5, is_augmented=is_augmented).size
    (folder / "images" / "4.png").write_bytes(b"")
    with pytest.raises(DatasetError, match="none of the chosen images can be read"):
        preview(folder, number=5, is_augmented=is_augmented)


def test_a_crowd_is_dashed_and_called_one(folder):
    content = json.loads((folder / "train.json").read_text())
    before = num_pixels(preview(folder, number=5), 0)
    for record in content["annotations"][:3]:
        record["iscrowd"] = 1
    (folder / "train.json").write_text(json.dumps(content))
    crowds = preview(folder, number=5)
    assert num_pixels(crowds, 0) != before
