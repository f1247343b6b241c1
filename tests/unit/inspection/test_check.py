"""`data check` lists what training would refuse or end on, and says what it only repairs."""

import io
import json
import logging
import os

import numpy as np
import pytest
import yaml
from PIL import Image

from dyhead_det.config.schema import to_plain
from dyhead_det.data.build_datasets import load_training_data
from dyhead_det.data.coco.dataset import load_coco
from dyhead_det.data.formats.part_names import PARTS
from dyhead_det.data.formats.source import Source
from dyhead_det.data.formats.write import write_dataset
from dyhead_det.errors import DatasetError
from dyhead_det.inspection.check import check_dataset, check_target, check_together
from dyhead_det.inspection.targets import read_target

from conftest import draw_tiny_dataset, make_config


@pytest.fixture
def folder(tmp_path):
    """Four pictures of 64 pixels, 0.png to 3.png, with a square each; no circle."""
    return draw_tiny_dataset(tmp_path / "tiny")


def check(folder, **options):
    return check_together(
        [check_dataset(Source(folder / "train.json", folder / "images"), **options)]
    )


def change(folder, **sections):
    content = json.loads((folder / "train.json").read_text())
    (folder / "train.json").write_text(json.dumps({**content, **sections}))


def test_a_sound_data_set_is_usable_and_its_unused_class_named(folder):
    found = check(folder)
    found.require_usable()
    *lines, last = found.text().splitlines()
    assert lines == [
        "note: classes without an object: 1 (circle)",
        "note: classes of fewer than 20 objects: 1 (square (4))",
    ]
    assert "4 images (4 opened), 4 boxes, 0 of them crowds, 2 categories: square, circle" in last


def test_every_image_is_opened_and_sorted_by_what_is_wrong(folder):
    images = folder / "images"
    Image.new("RGB", (96, 64)).save(images / "0.png")
    (images / "1.png").write_bytes(b"")
    (images / "2.png").write_bytes((images / "3.png").read_bytes()[:60])
    found = check(folder)
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
    check(folder, opens_images=False).require_usable()


def test_a_missing_image_a_pipe_and_another_case_are_errors(folder):
    images = folder / "images"
    (images / "0.png").unlink()
    (images / "1.png").rename(images / "1.PNG")
    (images / "2.png").unlink()
    os.mkfifo(images / "2.png")
    text = check(folder).text()
    assert f"error: images that are not in {images}: 2 (0.png, 1.png (there is 1.PNG))" in text
    assert "2.png: cannot be read as an image: Is a named pipe" in text
    assert "4 images (2 opened)" in text


def test_a_name_that_is_refused_is_not_opened_too(folder):
    document = json.loads((folder / "train.json").read_text())
    document["images"][0]["file_name"] = "/etc/passwd"
    change(folder, images=document["images"])
    result = check(folder)
    assert [finding.kind for finding in result.findings if finding.severity == "error"] == [
        "images whose file_name is no path inside the images folder"
    ]
    assert result.parts[0].num_opened == len(document["images"]) - 1


def test_an_end_marker_that_is_lacking_is_a_warning(folder):
    file = io.BytesIO()
    Image.open(folder / "images" / "0.png").save(file, format="JPEG")
    (folder / "images" / "0.png").write_bytes(file.getvalue()[:-2])
    found = check(folder)
    found.require_usable()
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


def copy_of(folder, name, **changes):
    """Write an annotation file of a part, with other images and annotations than the first."""
    content = json.loads((folder / "train.json").read_text())
    (folder / name).write_text(json.dumps({**content, **changes}))
    return check_dataset(Source(folder / name, folder / "images"), split="val")


def test_pictures_that_two_parts_have_are_a_warning_and_named_with_their_files(folder):
    content = json.loads((folder / "train.json").read_text())
    change(folder, images=content["images"][:2], annotations=content["annotations"][:2])
    own = {"images": content["images"][2:], "annotations": content["annotations"][2:]}
    train = check_dataset(Source(folder / "train.json", folder / "images"))
    assert check_together([train, copy_of(folder, "val.json", **own)]).between == ()
    images = folder / "images"
    (images / "2.png").write_bytes((images / "0.png").read_bytes())
    Image.open(images / "1.png").convert("L").save(images / "3.png")
    leaking = check_together([train, copy_of(folder, "val.json", **own)])
    assert [finding.items for finding in leaking.between] == [
        ("train.json: 0.png = val.json: 2.png",),
        ("train.json: 1.png = val.json: 3.png",),
    ]
    leaking.require_usable()


def test_one_picture_twice_in_a_part_is_a_warning_but_a_name_twice_is_not_that(folder):
    content = json.loads((folder / "train.json").read_text())
    images = folder / "images"
    (images / "2.png").write_bytes((images / "0.png").read_bytes())
    again = {**content["images"][0], "id": 99}
    change(folder, images=[*content["images"], again])
    text = check(folder).text()
    assert "warning: images whose files are equal, all of them kept: 1 (0.png = 2.png)" in text
    assert "image files listed again under another id" in text


def test_parts_with_other_classes_are_told_of(folder):
    categories = [{"id": 7, "name": "square"}, {"id": 8, "name": "star"}]
    train = check_dataset(Source(folder / "train.json", folder / "images"))
    other = check_together([train, copy_of(folder, "val.json", categories=categories)])
    lacking = {finding.kind: finding.items for finding in other.between if "lacks" in finding.kind}
    assert lacking == {
        f"classes that {folder / 'train.json'} lacks": ("star",),
        f"classes that {folder / 'val.json'} lacks": ("circle",),
    }
    none = [{"id": 7, "name": "star"}]
    with pytest.raises(DatasetError, match="cannot be trained on"):
        check_together([train, copy_of(folder, "val.json", categories=none)]).require_usable()


def test_a_run_that_skips_broken_images_is_not_refused_for_them(folder, tmp_path):
    (folder / "images" / "0.png").unlink()
    (folder / "images" / "1.png").write_bytes(b"")
    path = tmp_path / "run.yaml"
    config = make_config(folder, data={"broken_images": "skip", "val": None})
    path.write_text(yaml.safe_dump(to_plain(config)))
    found = check_target(read_target(path))
    found.require_usable()
    assert "warning: images that cannot be read: 1 (1.png" in found.text()
    with pytest.raises(DatasetError):
        check_target(read_target(path, overrides=["data.broken_images=error"])).require_usable()


def test_a_share_that_is_held_out_is_compared_with_the_rest(folder, tmp_path):
    for number in (1, 2, 3):
        first = (folder / "images" / "0.png").read_bytes()
        (folder / "images" / f"{number}.png").write_bytes(first)
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(to_plain(make_config(folder, data={"val": None}))))
    found = check_target(read_target(path, overrides=["data.val={split: 0.5}"]))
    [finding] = found.between
    assert "images in both parts (equal files)" in finding.kind
    assert finding.items[0].count("held out by data.val: ") == 2
    alone = check_target(read_target(path))
    assert alone.between == ()
    unknown = check_target(read_target(path, overrides=["data.classes=[square, star]"]))
    assert "error: data.classes that there are not: 1 (star)" in unknown.text()


def test_parts_of_yolo_data_are_told_apart(folder):
    write_dataset(
        {
            part: [load_coco(folder / "train.json", folder / "images", split="train")]
            for part in PARTS
        },
        folder / "yolo",
        "yolo",
    )
    for place in (folder / "yolo", folder / "yolo" / "data.yaml"):
        found = check_target(read_target(place))
        found.require_usable()
        assert [part.name for part in found.parts] == [
            f"{folder / 'yolo' / 'data.yaml'} ({part})" for part in PARTS
        ]
        shared = [finding.items for finding in found.between]
        assert [len(items) for items in shared] == [4, 4, 4]
        assert shared[0][0].startswith("data.yaml (train): ")


@pytest.mark.parametrize(
    ("form", "places"),
    [
        ("yolo", ["labels/train/0.txt:2", "labels/train/0.txt:2 = labels/train/0.txt:3"]),
        ("voc", ["0.xml:13", "0.xml:13 = 0.xml:20"]),
    ],
)
def test_findings_name_the_line_in_files_without_ids(folder, form, places):
    content = json.loads((folder / "train.json").read_text())
    tiny = {**content["annotations"][0], "bbox": [1, 1, 40, 3]}
    more = [{**tiny, "id": 20}, {**tiny, "id": 21, "bbox": [1, 1, 40, 3.1]}]
    change(folder, annotations=[*content["annotations"], *more])
    dataset = load_coco(folder / "train.json", folder / "images", split="train")
    write_dataset({"train": [dataset]}, folder / form, form)
    found = check_dataset(Source(folder / form))
    assert found.problems.noted["boxes with a side under 4 pixels, file and line"][0] == places[0]
    [twice] = [kind for kind in found.problems.repaired if "in one place" in kind]
    assert "file and line" in twice
    assert found.problems.repaired[twice] == places[1:]
