"""Names that a format cannot hold are refused, and links are followed."""

import json

import pytest
from PIL import Image

from dyhead_det.data.coco.dataset import load_coco
from dyhead_det.data.formats.write import write_dataset
from dyhead_det.errors import DatasetError


def load(folder, class_name="cat"):
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}],
        "categories": [{"id": 1, "name": class_name}],
    }
    (folder / "a.json").write_text(json.dumps(document))
    Image.new("1", (8, 8)).save(folder / "real.png")
    (folder / "a.png").symlink_to("real.png")
    return load_coco(folder / "a.json", folder, split="train")


@pytest.mark.parametrize("name", ["two\nlines", " blank", "\x1b[2J"])
def test_a_class_that_voc_cannot_hold_is_refused(tmp_path, name):
    with pytest.raises(DatasetError, match="names of classes that Pascal VOC cannot hold"):
        write_dataset({"train": [load(tmp_path, name)]}, tmp_path / "out", "voc")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["two\nlines", " blank", "\x1b[2J", "7", "no", "<&>"])
def test_yolo_holds_any_name(tmp_path, name):
    from dyhead_det.data.formats.yolo_config import read_yolo_config

    write_dataset({"train": [load(tmp_path, name)]}, tmp_path / "out", "yolo")
    assert read_yolo_config(tmp_path / "out" / "data.yaml").names == {0: name}


def test_an_image_that_is_a_link_becomes_a_file(tmp_path):
    write_dataset({"train": [load(tmp_path)]}, tmp_path / "out", "coco")
    assert not (tmp_path / "out" / "images" / "train" / "a.png").is_symlink()
