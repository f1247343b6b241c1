"""A repaired copy has none of what was repaired, keeps all else, and the original is untouched."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyhead_det.data.coco.dataset import load_coco
from dyhead_det.data.formats.source import Source
from dyhead_det.errors import ConfigError, DatasetError
from dyhead_det.inspection.check import check_dataset
from dyhead_det.inspection.repair import (
    DROPPED,
    changes_path,
    repair_file,
    require_repairable,
    write_repaired,
)
from dyhead_det.inspection.targets import read_target

from conftest import draw_tiny_dataset


@pytest.fixture
def folder(tmp_path):
    """Six pictures of 64 pixels with a square each, and keys that nobody knows."""
    folder = draw_tiny_dataset(tmp_path / "tiny", num_images=6)
    change(folder, lambda content: content["annotations"][0].update(attributes={"seen": True}))
    change(folder, lambda content: content.update(info={"year": 2021}))
    return folder


def change(folder, by):
    content = json.loads((folder / "train.json").read_text())
    by(content)
    (folder / "train.json").write_text(json.dumps(content))


def repaired(folder):
    checked = check_dataset(Source(folder / "train.json", folder / "images"))
    return write_repaired(checked, folder / "fixed.json")


def test_a_sound_file_is_copied_as_it_is(folder):
    before = (folder / "train.json").read_bytes()
    fixed, again = repaired(folder)
    assert fixed.changes == ()
    assert fixed.summary() == "nothing to change"
    assert (folder / "train.json").read_bytes() == before
    assert json.loads((folder / "fixed.json").read_text()) == json.loads(before)
    again.require_usable()


def broken(content):
    images, annotations = content["images"], content["annotations"]
    images[1]["width"] = None
    images[2]["file_name"] = ".\\2.png"
    images.append(dict(images[3]))
    annotations[1]["bbox"] = [-4, 2, 20, 20]
    annotations[2]["bbox"] = [3, 4, 0, 9]
    del annotations[3]["area"]
    annotations += [
        {**annotations[3], "id": 3},
        {**annotations[3], "bbox": [1, 2, 3, 4], "id": 3},
        {**annotations[3], "image_id": 999, "id": 30},
        {**annotations[3], "bbox": "nothing", "id": 31},
        17,
    ]
    content["categories"].append(dict(content["categories"][0]))


def test_what_reading_repairs_and_refuses_is_written_down(folder):
    change(folder, broken)
    (folder / "images" / "5.png").write_bytes(b"")
    (folder / "images" / "4.png").unlink()
    fixed, again = repaired(folder)
    assert (
        fixed.summary()
        == (
            "left out: 3 images, 7 annotations, 1 categories; changed: 1 images.width, "
            "1 images.file_name, 1 annotations.bbox, 1 annotations.area, 1 annotations.id"
        )
        or fixed.summary()
    )
    again.require_usable()
    assert {finding.severity for finding in again.findings} == {"note"}
    document = json.loads((folder / "fixed.json").read_text())
    assert [image["file_name"] for image in document["images"]] == [
        "0.png",
        "1.png",
        "./2.png",
        "3.png",
    ]
    assert document["images"][1]["width"] == 64
    assert document["info"] == {"year": 2021}
    by_id = {record["id"]: record for record in document["annotations"]}
    assert by_id[1]["attributes"] == {"seen": True}
    assert by_id[2]["bbox"] == [0, 2, 16, 20]
    assert by_id[4]["area"] == 400
    assert sorted(by_id) == [1, 2, 3, 4]  # 3 was that of a box without a size
    assert by_id[3]["bbox"] == [1, 2, 3, 4]


def test_the_list_has_every_change_with_what_was_there(folder):
    change(folder, broken)
    fixed, _ = repaired(folder)
    with changes_path(folder / "fixed.json").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["section", "position", "id", "key", "before", "after"]
    assert len(rows) == len(fixed.changes)
    assert ["annotations", "1", "2", "bbox", "[-4, 2, 20, 20]", "[0, 2, 16, 20]"] in rows
    assert ["images", "2", "12", "file_name", ".\\2.png", "./2.png"] in rows
    assert ["annotations", "10", "null", DROPPED, "17", "null"] in rows


FORMS = {
    "fractions": lambda x, y, w, h: [x / 64, y / 64, w / 64, h / 64],
    "yolo": lambda x, y, w, h: [(x + w / 2) / 64, (y + h / 2) / 64, w / 64, h / 64],
    "fractions of corners": lambda x, y, w, h: [x / 64, y / 64, (x + w) / 64, (y + h) / 64],
    "corners": lambda x, y, w, h: [x, y, x + w, y + h],
}


@pytest.mark.parametrize("form", FORMS)
def test_boxes_of_another_form_become_what_they_were(tmp_path, form):
    folder = draw_tiny_dataset(tmp_path / "tiny", num_images=1)
    chance = np.random.default_rng(0)
    sides = chance.uniform(5, 50, (60, 2))
    corners = chance.uniform(0, 1, (60, 2)) * (64 - sides)
    boxes = np.concatenate([corners, sides], axis=1).tolist()

    def write(content):
        content["annotations"] = [
            {"id": n, "image_id": 10, "category_id": 7, "bbox": FORMS[form](*box)}
            for n, box in enumerate(boxes, start=1)
        ]

    change(folder, write)
    with pytest.raises(DatasetError):
        load_coco(folder / "train.json", folder / "images", split="train")
    _, again = repaired(folder)
    again.require_usable()
    np.testing.assert_allclose(again.parts[0].dataset.boxes_xywh, boxes, atol=1e-9)


def test_what_a_person_must_decide_is_refused(folder):
    change(folder, lambda content: content["categories"].append({"id": 9, "name": "square"}))
    with pytest.raises(DatasetError, match=r"cannot be repaired by a program: category names with"):
        repair_file(folder / "train.json", folder / "images")
    assert not (folder / "fixed.json").exists()


def test_a_copy_without_an_image_is_refused(folder):
    for path in (folder / "images").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match="no image would be left"):
        repaired(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [("train.json", "is the original"), ("there.json", "is there already; give another name")],
)
def test_neither_the_original_nor_another_file_is_replaced(folder, name, message):
    (folder / "there.json").write_text("{}")
    target = read_target(folder / "train.json", images=folder / "images")
    with pytest.raises(ConfigError, match=message):
        require_repairable(target, folder / name, overwrite=False)
    with pytest.raises(ConfigError, match="is the original"):
        require_repairable(target, folder / "train.json", overwrite=True)
    require_repairable(target, folder / "there.json", overwrite=True)


def test_two_parts_are_not_one_file(folder):
    target = read_target(
        folder / "train.json", images=folder / "images", also=[folder / "train.json"]
    )
    with pytest.raises(ConfigError, match="--fix repairs one COCO file, this is 2 parts"):
        require_repairable(target, folder / "fixed.json", overwrite=False)


VALUES = st.sampled_from(
    [None, -1, 0, 3, 64.5, "7", "x", [], {}, [1, 2, 30, 40], float("nan"), True]
)


@given(data=st.data())
@settings(max_examples=30)
def test_a_copy_is_read_without_a_word_whatever_was_broken(tmp_path_factory, data):
    folder: Path = tmp_path_factory.mktemp("broken")
    draw_tiny_dataset(folder / "tiny")
    content = json.loads((folder / "tiny" / "train.json").read_text())
    for _ in range(data.draw(st.integers(1, 4))):
        record = data.draw(st.sampled_from([*content["annotations"], *content["images"]]))
        record[data.draw(st.sampled_from(sorted(record)))] = data.draw(VALUES)
    path = folder / "tiny" / "train.json"
    path.write_text(json.dumps(content))
    try:
        fixed = repair_file(path, folder / "tiny" / "images")
    except DatasetError:
        return
    fixed.write(folder / "fixed.json")
    again = check_dataset(
        Source(folder / "fixed.json", folder / "tiny" / "images"), opens_images=False
    )
    assert again.problems.refused == {}
    assert [kind for kind in again.problems.repaired if "another id" not in kind] == []
