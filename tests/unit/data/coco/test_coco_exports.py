"""COCO files as tools export them, and as strangers break them: what is read and what is said."""

import json
import logging
import os
import time
import unicodedata

import pytest

from dyhead_det.data.coco.dataset import load_coco, require_images
from dyhead_det.errors import DatasetError

BOXES = [[1, 2, 30, 40], [50, 5, 20, 30], [60, 10, 25, 35], [10, 10, 80, 30]]


def document(**sections):
    """Two images of 100 x 50, two categories, four boxes that alternate between both."""
    return {
        "images": [
            {"id": 7, "file_name": "one.png", "width": 100, "height": 50},
            {"id": 4, "file_name": "two.png", "width": 100, "height": 50},
        ],
        "annotations": [
            {"id": n, "image_id": (7, 4)[n % 2], "category_id": (3, 9)[n // 2 % 2], "bbox": box}
            for n, box in enumerate(BOXES, start=1)
        ],
        "categories": [{"id": 3, "name": "dog"}, {"id": 9, "name": "cat"}],
        **sections,
    }


@pytest.fixture
def load(tmp_path, caplog):
    """Write a document, load it, and return the data set and all that is said."""

    def write_and_load(content):
        path = tmp_path / "annotations.json"
        path.write_text(json.dumps(content))
        with caplog.at_level(logging.WARNING):
            dataset = load_coco(path, tmp_path / "images", split="train")
        return dataset, "\n".join(caplog.messages)

    return write_and_load


def test_the_root_of_a_roboflow_export_is_left_out(load):
    categories = [
        {"id": 0, "name": "pets", "supercategory": "none"},
        {"id": 3, "name": "dog", "supercategory": "pets"},
        {"id": 9, "name": "cat", "supercategory": "pets"},
    ]
    dataset, said = load(document(categories=categories))
    assert dataset.categories.names == ("dog", "cat")
    assert "supercategory of all others, left out: 1 (pets)" in said


def test_a_root_may_have_the_name_of_the_only_class(load):
    content = document(
        categories=[
            {"id": 0, "name": "dog", "supercategory": "none"},
            {"id": 3, "name": "dog", "supercategory": "dog"},
        ]
    )
    for annotation in content["annotations"]:
        annotation["category_id"] = 3
    dataset, said = load(content)
    assert [category.dataset_id for category in dataset.categories] == [3]
    assert "left out: 1 (dog)" in said


@pytest.mark.parametrize(
    "categories",
    [
        # It has a box; it is not above all others; it stands alone.
        [{"id": 3, "name": "dog"}, {"id": 9, "name": "cat", "supercategory": "dog"}],
        [
            {"id": 0, "name": "pets"},
            {"id": 3, "name": "dog", "supercategory": "pets"},
            {"id": 9, "name": "cat", "supercategory": "wild"},
        ],
        [{"id": 3, "name": "dog"}, {"id": 9, "name": "cat"}, {"id": 5, "name": "cow"}],
    ],
)
def test_other_categories_stay_though_they_have_no_box(load, categories):
    dataset, said = load(document(categories=categories))
    assert len(dataset.categories) == len(categories)
    assert said == ""


def test_text_image_ids_are_numbered_without_false_complaints(load):
    content = document()
    for section, key in (("images", "id"), ("annotations", "image_id")):
        for record in content[section]:
            record[key] = f"img_{record[key]}"
    dataset, said = load(content)
    assert dataset.image_ids.tolist() == [1, 2]
    assert [len(dataset.target(index)["boxes"]) for index in range(2)] == [2, 2]
    assert said.count(";") == 0
    assert "image ids that are text, numbered from 1 (in results too): 2 (img_7, img_4)" in said


def test_text_category_ids_are_numbered_in_the_order_of_the_file(load):
    content = document()
    for section, key in (("categories", "id"), ("annotations", "category_id")):
        for record in content[section]:
            record[key] = f"c-{record[key]}"
    dataset, said = load(content)
    assert dataset.categories.names == ("dog", "cat")
    assert dataset.labels.tolist() == load(document())[0].labels.tolist()
    assert "category ids that are text, numbered from 1: 2 (c-3, c-9)" in said


def test_an_image_without_an_id_is_the_only_complaint(load):
    content = document()
    content["images"][0]["id"] = None
    with pytest.raises(DatasetError) as caught:
        load(content)
    assert "images without an id, positions: 1 (0)" in str(caught.value)
    assert "unknown image" not in str(caught.value)
    assert "different images" not in str(caught.value)


def test_lvis_images_are_called_as_in_their_url(load, tmp_path):
    images = [
        {"id": number, "width": 100, "height": 50, "coco_url": f"http://host/train2017/{name}"}
        for number, name in ((7, "1.jpg"), (4, "2%20b.jpg"))
    ]
    dataset, said = load(document(images=images))
    assert list(dataset.file_names) == ["train2017/1.jpg", "train2017/2 b.jpg"]
    assert "without file_name, called as in coco_url: 2 (train2017/1.jpg" in said
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.jpg").write_bytes(b"")  # the images folder is train2017 itself
    assert load(document(images=images))[0].file_names[0] == "1.jpg"


@pytest.mark.parametrize(
    "url", [None, 5, "", "http://host/", "http://[x", "http://host/../..", "a/.."]
)
def test_a_url_without_a_file_is_no_name(load, url):
    images = [{"id": 7, "width": 100, "height": 50, "coco_url": url}]
    with pytest.raises(DatasetError, match="no path inside the images folder"):
        load(document(images=images))


def test_annotations_written_twice_are_taken_once(load):
    content = document()
    again = [{**record, "id": record["id"] + 100} for record in content["annotations"]]
    content["annotations"] += again
    dataset, said = load(content)
    assert sorted(dataset.annotation_ids.tolist()) == [1, 2, 3, 4]
    assert "written twice (same image, category and box), dropped: 4 (101, 102, 103, 104)" in said


@pytest.mark.parametrize(
    "change", [{"image_id": 4}, {"category_id": 9}, {"iscrowd": 1}, {"bbox": [1, 2, 30, 40.001]}]
)
def test_annotations_that_differ_are_all_kept(load, change):
    first = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 30, 40]}
    dataset, said = load(document(annotations=[first, {**first, "id": 2, **change}]))
    assert len(dataset.labels) == 2
    assert said == ""


def test_an_image_file_under_several_ids_is_kept_and_told(load):
    content = document()
    content["images"][1]["file_name"] = "one.png"
    dataset, said = load(content)
    assert len(dataset) == 2
    assert "listed again under another id, all of them kept: 1 (one.png)" in said


@pytest.mark.parametrize("side", [2**40, 2**62, 10**30, -5, [100], True, "wide", None, 0.5])
def test_a_side_that_no_image_has_is_refused_without_the_image(load, side):
    content = document()
    for image in content["images"]:
        image["width"] = side
    with pytest.raises(DatasetError, match=r"without a usable width and height.*: 2 \(image id 7"):
        load(content)


@pytest.mark.parametrize("name", ["a\ud800", "\udcff"])
def test_half_a_surrogate_pair_is_no_name(load, name):
    categories = [{"id": 3, "name": "dog"}, {"id": 9, "name": name}]
    with pytest.raises(DatasetError, match=r"half a surrogate pair.*: 1 \(1\)"):
        load(document(categories=categories))


def test_names_stay_on_one_line_of_an_error(load):
    content = document(
        categories=[{"id": 3, "name": "a\nb\x1b[2J"}, {"id": 9, "name": "a\nb\x1b[2J"}]
    )
    with pytest.raises(DatasetError) as caught:
        load(content)
    assert str(caught.value).isprintable()
    assert r"a\nb\x1b[2J" in str(caught.value)


def test_long_names_are_cut_in_an_error(load):
    content = document()
    content["images"][0]["file_name"] = "/" + "x" * 1_000_000
    with pytest.raises(DatasetError) as caught:
        load(content)
    assert len(str(caught.value)) < 1000


@pytest.mark.timeout(60)
def test_many_categories_are_read_in_linear_time(load):
    categories = [{"id": number, "name": f"c{number}"} for number in range(1, 20_001)]
    started_at = time.process_time()
    dataset, _ = load(document(categories=categories))
    assert len(dataset.categories) == 20_000
    assert time.process_time() - started_at < 2  # compared pair by pair: 5 s and more


def test_a_name_in_another_unicode_form_is_found(load, tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "größe é.png") for form in ("NFC", "NFD"))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / decomposed).write_bytes(b"")
    (tmp_path / "images" / "two.png").write_bytes(b"")
    content = document()
    content["images"][0]["file_name"] = composed
    dataset, said = load(content)
    require_images(dataset)
    assert dataset.image_file(0).name == decomposed
    assert said == ""
    content["images"][0]["file_name"] = decomposed
    assert load(content)[0].digest() == dataset.digest()


def test_names_in_another_case_are_told(load, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "ONE.PNG").write_bytes(b"")
    dataset, _ = load(document())
    with pytest.raises(
        DatasetError, match=r"1 differ in upper and lower case only: one.png is ONE"
    ):
        require_images(dataset)


def test_an_annotation_file_that_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "pipe.json", tmp_path, "/dev/zero"):
        with pytest.raises(DatasetError, match=r"cannot be read: Is a .*data\.train\.annotations"):
            load_coco(tmp_path / path, tmp_path, split="train")


def test_annotations_without_a_number_are_called_by_their_text_or_position(load):
    content = document()
    for record, written in zip(content["annotations"], ["u-1", None, 7, ["x"]], strict=True):
        record.update(id=written, image_id=99)
    with pytest.raises(DatasetError, match=r"unknown image: 4 \(u-1, position 1, 7, position 3\)"):
        load(content)


@pytest.mark.parametrize("depth", [50, 900, 985])
def test_a_deep_value_is_cut_in_an_error(tmp_path, depth):
    deep = "[" * depth + "]" * depth
    text = json.dumps(document()).replace('"one.png"', deep)
    (tmp_path / "deep.json").write_text(text)
    with pytest.raises(DatasetError) as caught:
        load_coco(tmp_path / "deep.json", tmp_path, split="train")
    assert len(str(caught.value)) < 1000


def test_the_federated_classes_of_lvis_are_told(tmp_path, caplog):
    content = {
        "images": [
            {
                "id": 9,
                "coco_url": "http://images.cocodataset.org/train2017/000000000009.jpg",
                "width": 64,
                "height": 64,
                "neg_category_ids": [2],
                "not_exhaustive_category_ids": [],
            }
        ],
        "annotations": [{"id": 1, "image_id": 9, "category_id": 1, "bbox": [1, 1, 9, 9]}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    (tmp_path / "lvis.json").write_text(json.dumps(content))
    dataset = load_coco(tmp_path / "lvis.json", tmp_path, split="train")
    assert list(dataset.file_names) == ["train2017/000000000009.jpg"]
    assert "classes that nobody looked for are taken as absent too" in caplog.text
