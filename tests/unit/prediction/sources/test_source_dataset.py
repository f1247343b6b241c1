"""The images of a data set as sources, by its own names and ids."""

import json

import pytest

from dyhead_det.errors import ConfigError
from dyhead_det.prediction.sources.dataset import dataset_images


def test_images_have_the_names_and_ids_of_the_data_set(tiny_dataset):
    document = json.loads((tiny_dataset / "train.json").read_text())
    document["annotations"] = document["annotations"][:1]  # images without an object are listed
    (tiny_dataset / "train.json").write_text(json.dumps(document))
    images = dataset_images(tiny_dataset / "train.json", tiny_dataset / "images")
    assert [(image.image_id, image.name) for image in images] == [
        *((10, "0.png"), (11, "1.png"), (12, "2.png"), (13, "3.png"))
    ]
    assert images[3].path == tiny_dataset / "images" / "3.png"
    assert images[3].annotated_size == (64, 64)


def test_data_are_named_as_for_eval(tiny_dataset, tmp_path):
    named = tmp_path / "own.yaml"
    named.write_text(f"root: {tiny_dataset}\nannotations: train.json\nimages: images\n")
    for data in (named, tiny_dataset / "train.json"):
        assert [image.path.parent for image in dataset_images(data, None)] == [
            tiny_dataset / "images"
        ] * 4
    with pytest.raises(ConfigError, match=r"--images goes with a \.json file"):
        dataset_images(named, tiny_dataset / "images")
