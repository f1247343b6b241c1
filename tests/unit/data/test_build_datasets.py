"""The data section, whatever the format: parts, classes, shares, and what `eval --data` takes."""

import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from dyhead_det.config.schema import DataConfig, parse_section
from dyhead_det.data.build_datasets import (
    load_evaluation_data,
    load_run_data,
    load_training_data,
    load_validation_data,
)
from dyhead_det.errors import ConfigError, DatasetError

from conftest import draw_tiny_dataset


@pytest.fixture
def coco(tmp_path):
    """Four pictures of 64 pixels with a square each, as COCO."""
    return draw_tiny_dataset(tmp_path / "coco")


@pytest.fixture
def yolo(coco, tmp_path):
    """The same as YOLO."""
    folder = tmp_path / "yolo"
    folder.mkdir()
    (coco / "images").rename(folder / "images")
    (folder / "labels").mkdir()
    content = json.loads((coco / "train.json").read_text())
    name_of_id = {category["id"]: category["name"] for category in content["categories"]}
    names = [name_of_id[number] for number in sorted(name_of_id)]
    for image, annotation in zip(content["images"], content["annotations"], strict=True):
        x, y, w, h = (value / 64 for value in annotation["bbox"])
        label = names.index(name_of_id[annotation["category_id"]])
        line = f"{label} {x + w / 2} {y + h / 2} {w} {h}\n"
        (folder / "labels" / image["file_name"]).with_suffix(".txt").write_text(line)
    (folder / "data.yaml").write_text("train: images\nval: images\nnames: [square, circle]\n")
    assert names == ["square", "circle"]
    return folder


def section(root, **values):
    return parse_section(DataConfig, {"root": str(root), **values})


def test_a_root_alone_names_the_training_data(yolo):
    dataset = load_training_data(section(yolo))
    assert (len(dataset), dataset.categories.names) == (4, ("square", "circle"))
    assert load_validation_data(section(yolo)) is None
    assert len(load_validation_data(section(yolo, val={}))) == 4


def test_yolo_is_what_coco_is(yolo, coco):
    (coco / "images").symlink_to(yolo / "images")
    assert load_training_data(section(yolo)).digest() == load_training_data(section(coco)).digest()


def test_names_made_for_coco_are_explained_where_there_is_yolo(yolo):
    config = section(yolo, train={"annotations": "train.json", "images": "images"})
    with pytest.raises(
        DatasetError, match=r"in the format yolo; leave out .*--set data.train=\{\}"
    ):
        load_training_data(config)


def test_classes_are_chosen_and_ordered_in_training_and_validation(yolo):
    config = section(yolo, val={}, classes=["circle", "square"])
    assert load_training_data(config).categories.names == ("circle", "square")
    assert load_validation_data(config).categories.names == ("circle", "square")


def test_a_share_of_the_training_images_is_held_out(yolo):
    config = section(yolo, val={"split": 0.25})
    train, val = load_training_data(config), load_validation_data(config)
    assert (len(train), len(val), val.split) == (3, 1, "val")
    assert sorted([*train.file_names, *val.file_names]) == [f"{i}.png" for i in range(4)]
    assert np.array_equal(load_validation_data(config).image_ids, val.image_ids)


@pytest.mark.parametrize(
    ("val", "reason"),
    [
        ({"split": 1.5}, "is no share of the training images between 0 and 1"),
        ({"split": True}, "neither the name of a split nor a share"),
        ({"split": 0.2, "annotations": "a.json"}, "has no annotations and images of its own"),
        ({"split": "val", "group": "a"}, "group and seed are for that only"),
        ({"split": 0.2, "group": "("}, "is no regular expression"),
    ],
)
def test_a_part_that_makes_no_sense_is_refused(val, reason):
    with pytest.raises(ValidationError, match=reason):
        section("x", val=val)


@pytest.mark.parametrize("name", ["", "data.yaml"])
def test_eval_takes_a_folder_and_a_data_yaml(yolo, name):
    data = Path(yolo / name)
    dataset = load_evaluation_data(section("nowhere"), data=data, images=None)
    assert len(dataset) == 4


def test_eval_looks_for_the_images_of_a_coco_file(coco, tmp_path):
    found = load_evaluation_data(section("nowhere"), data=coco / "train.json", images=None)
    assert found.image_file(0) == coco / "images" / "0.png"
    (tmp_path / "other.json").write_bytes((coco / "train.json").read_bytes())
    with pytest.raises(DatasetError, match=r"4 of the 4 images .*\(eval: --images\)"):
        load_evaluation_data(section("nowhere"), data=tmp_path / "other.json", images=None)


def test_a_run_reads_images_that_it_shares_out_once(yolo, monkeypatch):
    import dyhead_det.data.build_datasets as module

    reads = []

    def read(*arguments, **options):
        reads.append(arguments)
        return original(*arguments, **options)

    original = module.load_annotations
    monkeypatch.setattr(module, "load_annotations", read)
    config = section(yolo, val={"split": 0.25})
    train, val = load_run_data(config)
    assert len(reads) == 1
    assert train.digest() == load_training_data(config).digest()
    assert val.digest() == load_validation_data(config).digest()


def test_eval_tells_how_pascal_voc_is_given(tmp_path):
    (tmp_path / "a.xml").write_text("<annotation/>")
    with pytest.raises(ConfigError, match="given by their folder, not by one of the files"):
        load_evaluation_data(section("nowhere"), data=tmp_path / "a.xml", images=None)
