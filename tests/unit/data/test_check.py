"""`data check` lists what training would refuse or end on, and says what it only repairs."""

import io
import json
import logging
import os

import numpy as np
import pytest
from PIL import Image

from dyhead_det.data.build_datasets import load_training_data
from dyhead_det.data.check import check_dataset
from dyhead_det.errors import DatasetError

from conftest import draw_tiny_dataset, make_config


@pytest.fixture
def folder(tmp_path):
    """Four pictures of 64 pixels, 0.png to 3.png, with a square each; no circle."""
    return draw_tiny_dataset(tmp_path / "tiny")


def check(folder, **options):
    return check_dataset(folder / "train.json", folder / "images", **options)


def change(folder, **sections):
    content = json.loads((folder / "train.json").read_text())
    (folder / "train.json").write_text(json.dumps({**content, **sections}))


def test_a_sound_data_set_is_usable_and_its_unused_class_named(folder):
    found = check(folder)
    found.require_usable()
    *lines, last = found.text().splitlines()
    assert lines == ["note: classes without an object: 1 (circle)"]
    assert "4 images (4 opened), 4 boxes, 0 of them crowds, 2 categories: square, circle" in last


def test_every_image_is_opened_and_sorted_by_what_is_wrong(folder):
    images = folder / "images"
    Image.new("RGB", (96, 64)).save(images / "0.png")
    (images / "1.png").write_bytes(b"")
    (images / "2.png").write_bytes((images / "3.png").read_bytes()[:60])
    found = check(folder)
    assert not found.is_usable
    first, second, *_ = found.text().splitlines()
    assert first == (
        "error: images of another size than annotated: 1 (0.png: 96 x 64 pixels, annotated for "
        "64 x 64)"
    )
    assert (
        "error: images that cannot be read: 2 (1.png: cannot be read as an image, it is empty"
        in (second)
    )
    with pytest.raises(DatasetError, match=r"cannot be trained on as it is.*\(2 in all\)"):
        found.require_usable()
    assert check(folder, open_images=False).is_usable


def test_a_missing_image_a_pipe_and_another_case_are_errors(folder):
    images = folder / "images"
    (images / "0.png").unlink()
    (images / "1.png").rename(images / "1.PNG")
    (images / "2.png").unlink()
    os.mkfifo(images / "2.png")
    text = check(folder).text()
    assert "error: 2 of the 4 images" in text
    assert "1 differ in upper and lower case only: 1.png is 1.PNG" in text
    assert "2.png: cannot be read as an image: Is a named pipe" in text
    assert "4 images (2 opened)" in text


def test_a_name_that_is_refused_is_not_opened_too(folder):
    document = json.loads((folder / "train.json").read_text())
    document["images"][0]["file_name"] = "/etc/passwd"
    change(folder, images=document["images"])
    result = check(folder)
    assert list(result.problems.refused) == [
        "images whose file_name is no path inside the images folder"
    ]
    assert result.num_opened == len(document["images"]) - 1


def test_an_end_marker_that_is_lacking_is_a_warning(folder):
    file = io.BytesIO()
    Image.open(folder / "images" / "0.png").save(file, format="JPEG")
    (folder / "images" / "0.png").write_bytes(file.getvalue()[:-2])
    found = check(folder)
    assert found.is_usable
    assert "warning: images that lack their end marker, read all the same: 1" in found.text()


@pytest.mark.parametrize(("annotated", "how"), [((40, 64), "shown"), ((64, 40), "stored")])
def test_an_orientation_that_swaps_the_sides_is_noted(folder, annotated, how):
    image = Image.fromarray(np.zeros((40, 64, 3), dtype=np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(folder / "images" / "0.png", exif=exif)
    content = json.loads((folder / "train.json").read_text())
    content["images"][0].update(width=annotated[0], height=annotated[1])
    change(folder, images=content["images"])
    note = f"note: images whose EXIF orientation swaps the sides, read as {how}: 1 (0.png)"
    assert note in check(folder).text()


def without_boxes(folder):
    content = json.loads((folder / "train.json").read_text())
    return [
        {key: value for key, value in record.items() if key != "bbox"}
        for record in content["annotations"]
    ]


def with_relative_boxes(folder):
    content = json.loads((folder / "train.json").read_text())
    return [
        {**record, "bbox": [value / 64 for value in record["bbox"]]}
        for record in content["annotations"]
    ]


@pytest.mark.parametrize("breaks", [without_boxes, with_relative_boxes, lambda _: []])
def test_what_training_refuses_the_check_refuses(folder, breaks):
    change(folder, annotations=breaks(folder))
    with pytest.raises(DatasetError):
        load_training_data(make_config(folder).data)
    with pytest.raises(DatasetError):
        check(folder).require_usable()


def test_names_are_listed_on_one_line_each(folder):
    change(folder, categories=[{"id": 7, "name": "a\nb\x1b[2J"}])
    text = check(folder).text()
    assert all(line.isprintable() for line in text.splitlines())
    assert r"a\nb\x1b[2J" in text


def test_the_start_of_training_names_classes_without_an_object(folder, caplog):
    with caplog.at_level(logging.INFO):
        load_training_data(make_config(folder).data)
    assert "1 of 2 classes have no object to learn from: circle" in caplog.text
