"""COCO files as found in the world: what is repaired, what is refused, and what comes out."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from dyhead_det.data.coco.dataset import load_coco, missing_images, require_images
from dyhead_det.errors import DatasetError

REAL_DATA = Path(__file__).parents[5] / "shared" / "data"


def annotation(number, box, **others):
    record = {"id": number, "image_id": 7, "category_id": 3, "bbox": box}
    return {**record, **others}


def document(*annotations, **sections):
    """Two images of 100 x 50 (ids 7 and 4), two categories (ids 9 and 3, in this order)."""
    return {
        "images": [
            {"id": 7, "file_name": "a/one.png", "width": 100, "height": 50},
            {"id": 4, "file_name": "two.png", "width": 100, "height": 50},
        ],
        "annotations": list(annotations),
        "categories": [{"id": 9, "name": "cat"}, {"id": 3, "name": "dog"}],
        **sections,
    }


@pytest.fixture
def load(tmp_path):
    """Write a document (or raw text) to a file and load it."""

    def write_and_load(content):
        path = tmp_path / "annotations.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return load_coco(path, tmp_path / "images", split="train")

    return write_and_load


@pytest.fixture
def warnings_of(load, caplog):
    """Load a document and return the data set and the text of all warnings."""

    def load_and_listen(content):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            dataset = load(content)
        return dataset, [record.getMessage() for record in caplog.records]

    return load_and_listen


def test_categories_are_labeled_in_the_order_of_their_ids(load):
    dataset = load(
        document(annotation(1, [1, 2, 3, 4]), annotation(2, [1, 2, 3, 4], category_id=9))
    )
    assert dataset.categories.names == ("dog", "cat")
    assert dataset.labels.tolist() == [0, 1]


def test_boxes_become_corners_and_stay_with_their_image(load):
    dataset = load(
        document(
            annotation(5, [1.5, 2, 3, 4], image_id=4),
            annotation(6, [10, 20, 30, 10]),
            annotation(7, [0, 0, 9, 9], image_id=4),
        )
    )
    first, second = dataset.target(0), dataset.target(1)
    assert (first["image_id"], second["image_id"]) == (7, 4)
    assert first["boxes"].tolist() == [[10, 20, 40, 30]]
    assert second["boxes"].tolist() == [[1.5, 2, 4.5, 6], [0, 0, 9, 9]]
    assert second["boxes"].dtype == torch.float32
    assert second["labels"].dtype == torch.int64
    assert dataset.annotation_ids.tolist() == [6, 5, 7]
    assert dataset.image_file(0) == dataset.images.location / "a" / "one.png"
    assert dataset.size_wh(0) == (100, 50)


def test_clean_file_loads_without_a_word(warnings_of):
    _, messages = warnings_of(document(annotation(1, [1, 2, 3, 4])))
    assert messages == []


def test_an_image_without_annotations_has_an_empty_target_or_is_left_out(load):
    dataset = load(document(annotation(1, [1, 2, 3, 4], image_id=4)))
    assert dataset.target(0)["boxes"].shape == (0, 4)
    assert dataset.target(0)["labels"].shape == (0,)
    kept = dataset.without_empty_images()
    assert kept.image_ids.tolist() == [4]
    assert kept.target(0)["boxes"].tolist() == [[1, 2, 4, 6]]
    assert len(kept.ground_truth()["annotations"]) == 1


def test_no_annotations_at_all_is_an_empty_ground_truth(load):
    dataset = load(document())
    assert len(dataset) == 2
    assert dataset.boxes.shape == (0, 4)
    assert dataset.ground_truth()["annotations"] == []
    assert len(dataset.without_empty_images()) == 0


def test_crowds_are_no_targets_but_ground_truth(load):
    dataset = load(
        document(annotation(1, [0, 0, 50, 50], iscrowd=1), annotation(2, [1, 2, 3, 4], image_id=4))
    )
    assert len(dataset.target(0)["boxes"]) == 0
    assert dataset.without_empty_images().image_ids.tolist() == [4]
    assert [found["iscrowd"] for found in dataset.ground_truth()["annotations"]] == [1, 0]


@pytest.mark.parametrize("written", [1, True, 1.0, "1"])
def test_a_crowd_flag_is_read_in_every_spelling(load, written):
    others = annotation(2, [2, 2, 3, 4], iscrowd="0"), annotation(3, [3, 2, 3, 4], iscrowd=None)
    dataset = load(document(annotation(1, [1, 2, 3, 4], iscrowd=written), *others))
    assert dataset.is_crowd.tolist() == [True, False, False]


def test_ground_truth_keeps_unclipped_boxes_to_the_last_digit_and_the_given_area(load):
    dataset = load(document(annotation(1, [0.1, 0.2, 0.3, 30.7], area=5.5)))
    found = dataset.ground_truth()["annotations"][0]
    assert found == {
        "id": 1,
        "image_id": 7,
        "category_id": 3,
        "bbox": [0.1, 0.2, 0.3, 30.7],
        "area": 5.5,
        "iscrowd": 0,
    }


def test_a_box_partly_outside_is_clipped_and_counted(warnings_of):
    dataset, messages = warnings_of(document(annotation(11, [-10, 40, 30, 30])))
    assert dataset.boxes.tolist() == [[0, 40, 20, 50]]
    assert dataset.ground_truth()["annotations"][0]["area"] == 20 * 10
    assert len(messages) == 1
    assert "clipped: 1 (11)" in messages[0]


def test_rounding_beyond_the_edge_is_clipped_in_silence(warnings_of):
    dataset, messages = warnings_of(document(annotation(1, [90, 40, 10.3, 10.3])))
    assert dataset.boxes.tolist() == [[90, 40, 100, 50]]
    assert messages == []


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ([200, 10, 5, 5], "outside their image"),
        ([-20, 10, 20, 5], "outside their image"),
        ([99.9999999, 10, 5, 5], "outside their image"),  # no width left in float32
        ([10, 10, 0, 5], "zero or negative size"),
        ([10, 10, 5, -5], "zero or negative size"),
        ([10, 10, 1e-9, 5], "zero or negative size"),  # in float32
        ([10, float("nan"), 5, 5], "NaN or infinity"),
        ([10, 10, float("inf"), 5], "NaN or infinity"),
        ([float("-inf"), 10, float("inf"), 5], "NaN or infinity"),
        ([1e308, 10, 1e308, 5], "NaN or infinity"),
        ([10**400, 10, 1, 5], "NaN or infinity"),
        ([], "without bbox and segmentation"),
        (None, "without bbox and segmentation"),
    ],
)
def test_a_box_without_area_is_dropped_and_counted(warnings_of, box, reason):
    dataset, messages = warnings_of(document(annotation(12, box), annotation(13, [1, 2, 3, 4])))
    assert dataset.annotation_ids.tolist() == [13]
    assert len(dataset.ground_truth()["annotations"]) == 1
    assert len(messages) == 1
    assert f"{reason}, dropped: 1 (12)" in messages[0]


def test_all_repairs_are_told_in_one_warning_with_the_first_ids(warnings_of):
    outside = [annotation(number, [500, 10, 5, 5]) for number in range(20, 28)]
    _, messages = warnings_of(document(annotation(1, [-9, 0, 20, 9]), *outside))
    assert len(messages) == 1
    assert "annotations.json was repaired" in messages[0]
    assert "outside their image, dropped: 8 (20, 21, 22, 23, 24 and 3 more)" in messages[0]
    assert "clipped: 1 (1)" in messages[0]


@pytest.mark.parametrize(
    ("segmentation", "box"),
    [
        ([[10, 10, 30, 12, 20, 40]], [10, 10, 30, 40]),
        ([[10, 10, 30, 12, 20, 40], [1, 2, 3, 4, 2, 9]], [1, 2, 30, 40]),
        ([10, 10, 30, 12, 20, 40], [10, 10, 30, 40]),
        # Columns of 50 pixels: one column of background, then rows 5 to 14 of the second.
        ({"size": [50, 100], "counts": [55, 10, 4935]}, [1, 5, 2, 15]),
    ],
)
def test_a_missing_box_is_taken_from_the_segmentation(warnings_of, segmentation, box):
    record = annotation(1, None, segmentation=segmentation)
    dataset, messages = warnings_of(document(record, annotation(2, [0, 0, 5, 5])))
    assert dataset.boxes[0].tolist() == box
    assert "taken from the segmentation: 1 (1)" in messages[0]


def test_a_compressed_run_length_mask_gives_its_box(load):
    mask = np.zeros((50, 100), dtype=np.uint8, order="F")
    mask[10:20, 30:70] = 1
    encoded = run_lengths.encode(mask)
    encoded["counts"] = encoded["counts"].decode()
    record = annotation(1, None, segmentation=encoded)
    del record["bbox"]
    assert load(document(record)).boxes.tolist() == [[30, 10, 70, 20]]


@pytest.mark.parametrize(
    "segmentation",
    [
        "polygon",
        [["x", 1]],
        [[1, 2, 3]],
        [[]],
        {"size": [0, 0], "counts": [1, 2]},
        {"size": [50], "counts": [1, 2]},
        {"size": [50, 100], "counts": [1, -2]},
        {"size": [50, 100], "counts": None},
        {"counts": "abc"},
    ],
)
def test_a_malformed_segmentation_is_refused_where_it_is_needed(load, segmentation):
    with pytest.raises(DatasetError, match=r"malformed bbox or segmentation: 1 \(31\)"):
        load(document(annotation(31, None, segmentation=segmentation)))
    assert len(load(document(annotation(31, [1, 2, 3, 4], segmentation=segmentation))).labels) == 1


@pytest.mark.parametrize(
    "box", [[1, 2, 3], [1, 2, 3, 4, 5], ["1", 2, 3, 4], [1, None, 3, 4], "1 2 3 4", {"x": 1}, 5]
)
def test_a_malformed_box_is_refused(load, box):
    with pytest.raises(DatasetError, match=r"malformed bbox or segmentation: 1 \(31\)"):
        load(document(annotation(31, box), annotation(32, [1, 2, 3, 4])))


def test_relative_coordinates_are_refused(load):
    with pytest.raises(DatasetError, match="must be pixels"):
        load(document(annotation(1, [0.1, 0.2, 0.5, 0.5]), annotation(2, [0, 0, 1, 1])))


@pytest.mark.parametrize("area", [0, -1, float("nan"), "big"])
def test_an_unusable_area_is_replaced_by_that_of_the_box(warnings_of, area):
    records = annotation(1, [1, 2, 3, 4], area=area), annotation(2, [2, 2, 3, 4], area=7)
    dataset, messages = warnings_of(document(*records))
    assert dataset.areas.tolist() == [12, 7]
    assert "replaced: 1 (1)" in messages[0]


@pytest.mark.parametrize("numbers", [[0, 1], [5, 5], [None, 3], ["x", 3], [-4, 3]])
def test_unusable_annotation_ids_are_renumbered(warnings_of, numbers):
    records = [annotation(number, [x, 2, 3, 4]) for x, number in enumerate(numbers)]
    dataset, messages = warnings_of(document(*records))
    assert dataset.annotation_ids.tolist() == [1, 2]
    assert "renumbered: 1" in messages[0]


@pytest.mark.parametrize("written", ["7", 7.0])
def test_ids_written_as_text_or_with_a_point_are_the_same_ids(load, written):
    records = annotation(1, [1, 2, 3, 4], image_id=written), annotation(2, [2, 2, 3, 4])
    assert load(document(*records)).target(0)["boxes"].shape == (2, 4)


def test_everything_that_cannot_be_repaired_is_told_at_once(load):
    records = (
        annotation(21, [1, 2, 3, 4], image_id=99),
        annotation(22, [1, 2, 3, 4], image_id=None),
        annotation(23, [1, 2, 3, 4], category_id=1),
        annotation(24, [1, 2], image_id=7),
        annotation(25, [1, 2, 3, 4], iscrowd=2),
        "no object",
    )
    with pytest.raises(DatasetError) as caught:
        load(document(*records))
    message = str(caught.value)
    assert "\n" not in message
    assert "annotations.json cannot be used" in message
    assert "unknown image: 2 (21, 22)" in message
    assert "unknown category: 1 (23)" in message
    assert "malformed bbox or segmentation: 1 (24)" in message
    assert "iscrowd is neither 0 nor 1: 1 (25)" in message
    assert "entries of annotations that are not objects, positions: 1 (5)" in message


def test_an_image_listed_twice_is_taken_once(warnings_of):
    images = document()["images"]
    dataset, messages = warnings_of(document(images=[images[0], *images]))
    assert dataset.image_ids.tolist() == [7, 4]
    assert "listed twice, taken once, image ids: 1 (7)" in messages[0]


def test_one_image_id_for_two_images_is_refused(load):
    images = document()["images"]
    other = {**images[0], "file_name": "three.png"}
    with pytest.raises(DatasetError, match=r"ids used for different images: 1 \(7\)"):
        load(document(images=[*images, other]))


@pytest.mark.parametrize(
    ("categories", "reason"),
    [
        ([], "categories"),
        ([{"id": 3, "name": "dog"}, {"id": 3, "name": "cat"}], r"ids with two names: 1 \(3\)"),
        ([{"id": 3, "name": "dog"}, {"id": 4, "name": "dog"}], r"two ids .*: 1 \(dog\)"),
        ([{"id": 3, "name": "dog"}, {"id": 4}], r"without an id or a name .*positions: 1 \(1\)"),
        ([{"id": 3, "name": "dog"}, {"id": True, "name": "cat"}], "without an id or a name"),
        (["dog"], "not objects"),
    ],
)
def test_ambiguous_categories_are_refused(load, categories, reason):
    with pytest.raises(DatasetError, match=reason):
        load(document(categories=categories))


def test_a_category_listed_twice_is_taken_once(load):
    twice = [{"id": 3, "name": "dog"}, {"id": 3, "name": "dog"}]
    assert load(document(categories=twice)).categories.names == ("dog",)


def test_no_images_are_refused(load):
    with pytest.raises(DatasetError, match=r"list is empty.*images"):
        load(document(annotation(1, [1, 2, 3, 4]), images=[]))


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../secret.png",
        "a/../../secret.png",
        "..",
        "a\\..\\..\\secret.png",
        "C:\\photos\\a.png",
        "\\\\host\\share\\a.png",
        "",
        "folder/",
        "a\0b.png",
        "\ud800.png",
        None,
        5,
    ],
)
def test_a_file_name_never_leads_out_of_the_images_folder(load, name):
    images = [{"id": 7, "file_name": name, "width": 100, "height": 50}]
    with pytest.raises(DatasetError, match=r"no path inside the images folder.*image id 7"):
        load(document(images=images))


def test_backslashes_in_file_names_are_folders(warnings_of):
    images = [{"id": 7, "file_name": "a\\b\\one.png", "width": 100, "height": 50}]
    dataset, messages = warnings_of(document(images=images))
    assert dataset.image_file(0) == dataset.images.location / "a" / "b" / "one.png"
    assert "backslashes" in messages[0]


@pytest.mark.parametrize("size", [{}, {"width": None, "height": 0}, {"width": "wide", "height": 9}])
def test_a_missing_size_is_read_from_the_image(warnings_of, tmp_path, size):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "images" / "x.png")
    dataset, messages = warnings_of(document(images=[{"id": 7, "file_name": "x.png", **size}]))
    assert dataset.size_wh(0) == (60, 40)
    assert "taken from the image file: 1 (image id 7: x.png)" in messages[0]


def test_a_missing_size_without_an_image_is_refused(load):
    with pytest.raises(DatasetError, match=r"no file to take them from: 1 \(image id 7: x.png\)"):
        load(document(images=[{"id": 7, "file_name": "x.png"}]))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[1, 2]", "holds a JSON list"),
        ('"text"', "holds a JSON str"),
        ("{", "is not valid JSON"),
        ("", "is not valid JSON"),
        ("0 0.5 0.5 0.2 1e-1\n1 0 0 1 1\n", "label file of YOLO, give .*data check FOLDER"),
        ("<annotation><object/></annotation>", "Pascal VOC, give .*data check FOLDER"),
        ("[" * 100_000, "is not valid JSON"),
        ('{"images": []}', "annotations is missing, categories is missing"),
        ('{"images": {}, "annotations": [], "categories": []}', "images is not a list"),
    ],
)
def test_another_kind_of_file_is_named_with_its_config_key(load, content, reason):
    with pytest.raises(DatasetError, match=rf"annotations.json.*{reason}.*data.train.annotations"):
        load(content)


def test_a_file_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "bom.json"
    path.write_text(json.dumps(document()), encoding="utf-8-sig")
    assert len(load_coco(path, tmp_path, split="val")) == 2


def test_a_file_in_no_known_encoding_is_not_valid(tmp_path):
    path = tmp_path / "latin.json"
    path.write_bytes(b'{"images": "\xff\xe9"}')
    with pytest.raises(DatasetError, match="not valid JSON"):
        load_coco(path, tmp_path, split="val")


def test_a_missing_file_names_the_key_to_look_at(tmp_path):
    with pytest.raises(DatasetError, match=r"no annotation file.*data\.val\.annotations"):
        load_coco(tmp_path / "none.json", tmp_path, split="val")


def test_all_missing_images_are_told_at_once(load, tmp_path):
    images = [{"id": n, "file_name": f"{n}.png", "width": 9, "height": 9} for n in range(1, 10)]
    (tmp_path / "images").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "images" / "4.png")
    dataset = load(document(images=images))
    assert missing_images(dataset) == [f"{n}.png" for n in (1, 2, 3, 5, 6, 7, 8, 9)]
    with pytest.raises(DatasetError, match=r"8 of the 9 images .*1.png, .* and 3 more"):
        require_images(dataset)


def test_a_missing_images_folder_names_the_key_to_look_at(load):
    with pytest.raises(DatasetError, match=r"no images folder at .*data\.train\.images"):
        require_images(load(document()))


def average_precision(ground_truth, detections):
    coco = COCO()
    coco.dataset = ground_truth
    coco.createIndex()
    scores = COCOeval(coco, coco.loadRes(detections), "bbox")
    scores.evaluate()
    scores.accumulate()
    scores.summarize()
    return scores.stats[0]


def as_detections(ground_truth):
    return [
        {**found, "score": 1.0} for found in ground_truth["annotations"] if not found["iscrowd"]
    ]


def test_ground_truth_as_detections_is_perfect_even_where_ids_began_at_zero(load, capsys):
    records = [annotation(number, [number, 2, 30, 4]) for number in range(3)]
    ground_truth = load(document(*records)).ground_truth()
    assert average_precision(ground_truth, as_detections(ground_truth)) == 1.0


@pytest.mark.real_data
@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the real photographs are not here")
@pytest.mark.parametrize("name", ["bccd", "coco_cc", "fruitnut"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_published_files_come_back_as_they_are(name, split, caplog):
    path = REAL_DATA / name / f"{split}.json"
    published = json.loads(path.read_bytes())
    dataset = load_coco(path, path.parent / "images", split=split)
    require_images(dataset)
    ground_truth = dataset.ground_truth()
    wanted = {found["id"]: found for found in published["annotations"]}
    assert len(ground_truth["annotations"]) == len(wanted)
    for found in ground_truth["annotations"]:
        assert found["bbox"] == pytest.approx(wanted[found["id"]]["bbox"], abs=0.05)
        rest = {key: value for key, value in found.items() if key != "bbox"}
        assert rest == {key: wanted[found["id"]][key] for key in rest}
    assert caplog.records == []


@pytest.mark.real_data
@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the real photographs are not here")
def test_real_ground_truth_with_crowds_as_detections_is_perfect(capsys):
    folder = REAL_DATA / "coco_cc"
    dataset = load_coco(folder / "val.json", folder / "images", split="val")
    ground_truth = dataset.ground_truth()
    assert dataset.is_crowd.any()
    assert average_precision(ground_truth, as_detections(ground_truth)) == 1.0
