"""YOLO label files: boxes, polygons, key points, and every wrong line named with its file."""

import pytest
from PIL import Image

from dyhead_det.data.formats.read import load_annotations, read_annotations
from dyhead_det.data.formats.source import Source
from dyhead_det.data.formats.yolo import label_file
from dyhead_det.errors import DatasetError

NAMES = "names: [cat, dog]\n"


@pytest.fixture
def folder(tmp_path):
    """Two images of 100 x 50 pixels; the second one has no label file."""
    (tmp_path / "images" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train").mkdir(parents=True)
    for name in ("b", "a"):
        Image.new("RGB", (100, 50)).save(tmp_path / "images" / "train" / f"{name}.png")
    (tmp_path / "data.yaml").write_text(f"train: images/train\n{NAMES}")
    write(tmp_path, "1 0.5 0.5 0.2 0.4\n")
    return tmp_path


def write(folder, text, name="a"):
    (folder / "labels" / "train" / f"{name}.txt").write_text(text)


def read(folder, **options):
    return read_annotations(Source(folder), **options)


def test_a_box_is_pixels_around_its_center(folder):
    dataset = load_annotations(Source(folder))
    assert list(dataset.file_names) == ["a.png", "b.png"]
    assert dataset.boxes_xywh.tolist() == [[40.0, 15.0, 20.0, 20.0]]  # 50 - 20 / 2, 25 - 20 / 2
    assert dataset.labels.tolist() == [1]
    assert dataset.offsets.tolist() == [0, 1, 1]  # no label file, no object
    assert [(c.name, c.dataset_id) for c in dataset.categories] == [("cat", 0), ("dog", 1)]


def test_a_polygon_becomes_the_box_around_it(folder):
    write(folder, "0 0.1 0.2 0.5 0.2 0.3 0.6\n")
    dataset, problems, *_ = read(folder)
    assert dataset.boxes_xywh.tolist() == [[10.0, 10.0, 40.0, 20.0]]
    assert problems.repaired == {"boxes taken from the segmentation": ["labels/train/a.txt:1"]}


def test_key_points_behind_a_box_are_left_out(folder):
    (folder / "data.yaml").write_text(f"train: images/train\nkpt_shape: [2, 3]\n{NAMES}")
    write(folder, "0 0.5 0.5 0.2 0.4 .1 .1 2 .2 .2 1\n")
    assert load_annotations(Source(folder)).boxes_xywh.tolist() == [[40.0, 15.0, 20.0, 20.0]]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("0 0.5 0.5 0.2", "neither `class x y width height` nor a polygon"),
        ("0 0.5 0.5 0.2 0.4 0.9", "neither `class x y width height` nor a polygon"),
        ("dog 0.5 0.5 0.2 0.4", "neither `class x y width height` nor a polygon"),
        ("0.5 0.5 0.5 0.2 0.4", "neither `class x y width height` nor a polygon"),
        ("nan 0.5 0.5 0.2 0.4", "neither `class x y width height` nor a polygon"),
        ("0 50 25 20 20", "numbers beyond 0..1"),
        ("-1 0.5 0.5 0.2 0.4", "class ids that data.yaml does not name"),
        ("7 0.5 0.5 0.2 0.4", "class ids that data.yaml does not name"),
    ],
)
def test_a_wrong_line_is_refused_with_its_file_and_number(folder, line, kind):
    write(folder, f"0 0.5 0.5 0.2 0.4\n\n{line}\n")
    with pytest.raises(DatasetError, match=rf"{kind}.*labels/train/a.txt:3"):
        load_annotations(Source(folder))


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("0 nan 0.5 0.2 0.4", "NaN or infinity, dropped"),
        ("0 0.5 inf 0.2 0.4", "NaN or infinity, dropped"),
        ("0 0.5 0.5 -0.2 0.4", "zero or negative size, dropped"),
        ("0 0.5 0.5 0 0.4", "zero or negative size, dropped"),
        ("0 1.0 0.5 0.2 0.4", "partly outside their image, clipped"),
        ("0 0.5 0.5 0.2 0.4\n0 0.5 0.5 0.2 0.4", "written twice"),
    ],
)
def test_what_coco_repairs_is_repaired_with_file_and_line(folder, line, kind):
    write(folder, f"1 0.5 0.5 0.2 0.4\n{line}\n")
    _, problems, *_ = read(folder)
    ((found, titles),) = problems.repaired.items()
    assert kind in found
    assert titles[0].startswith("labels/train/a.txt:")


def test_class_ids_from_1_on_are_called_that(folder):
    write(folder, "1 0.5 0.5 0.2 0.4\n2 0.5 0.5 0.3 0.4\n")
    with pytest.raises(DatasetError, match=r"counted from 1.*a.txt:2: 2"):
        load_annotations(Source(folder))


def test_digits_of_a_fraction_do_not_move_a_box_of_whole_pixels(folder):
    x, y, w, h = 33, 7, 32, 32
    numbers = ((x + w / 2) / 100, (y + h / 2) / 50, w / 100, h / 50)
    write(folder, f"0 {' '.join(map(repr, numbers))}\n")
    dataset = load_annotations(Source(folder))
    assert dataset.boxes_xywh.tolist() == [[x, y, w, h]]
    assert dataset.areas.tolist() == [1024]  # COCO's bound of small objects


def test_label_files_that_are_no_text_are_named(folder):
    (folder / "labels" / "train" / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match=r"label files that are no text.*a.txt: line 1"):
        load_annotations(Source(folder))


def test_images_without_any_label_file_are_no_data_set(folder):
    (folder / "labels" / "train" / "a.txt").unlink()
    with pytest.raises(
        DatasetError, match=r"none of the 2 images.*looked for .*labels/train/a.txt"
    ):
        load_annotations(Source(folder))


def test_an_image_without_a_size_is_refused_or_left_out(folder):
    (folder / "images" / "train" / "b.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"images that cannot be read: 1 \(b.png: cannot"):
        load_annotations(Source(folder))
    dataset, problems, *_ = read(folder, broken_images="skip")
    assert list(dataset.file_names) == ["a.png"]
    assert "images that cannot be read, left out" in problems.repaired


def test_labels_lie_where_ultralytics_looks_for_them(tmp_path):
    assert label_file(tmp_path / "images" / "x" / "images" / "a.b.jpg") == (
        tmp_path / "images" / "x" / "labels" / "a.b.txt"
    )
    assert label_file(tmp_path / "photos" / "a.jpg") == tmp_path / "photos" / "a.txt"
