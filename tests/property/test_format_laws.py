"""Data sets come back as they were from every format, and from every way between formats."""

import json
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dyhead_det.data.coco.dataset import load_coco
from dyhead_det.data.formats.parts import read_parts
from dyhead_det.data.formats.read import read_annotations
from dyhead_det.data.formats.source import Source
from dyhead_det.data.formats.write import write_dataset
from dyhead_det.data.formats.xml_tree import read_xml
from dyhead_det.data.stratified_split import held_out
from dyhead_det.errors import DatasetError

SIZES = [(640, 480), (37, 53), (1001, 333)]

sides = st.sampled_from(SIZES)
class_names = st.lists(
    st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=8),
    min_size=1,
    max_size=4,
    unique=True,
)


@st.composite
def images(draw, digits):
    """An image size and boxes inside, in steps of 10 ** -digits pixels."""
    width, height = draw(sides)
    step = 10.0**-digits
    boxes = []
    for _ in range(draw(st.integers(0, 4))):
        x1, x2 = sorted(draw(st.lists(st.integers(0, round(width / step)), min_size=2, max_size=2)))
        y1, y2 = sorted(
            draw(st.lists(st.integers(0, round(height / step)), min_size=2, max_size=2))
        )
        if x2 - x1 >= 1 / step and y2 - y1 >= 1 / step:
            boxes.append([round(v * step, digits) for v in (x1, y1, x2 - x1, y2 - y1)])
    return (width, height), boxes


@st.composite
def datasets(draw):
    names = draw(class_names)
    digits = draw(st.sampled_from([0, 0, 3]))
    content = draw(st.lists(images(digits), min_size=1, max_size=3))
    labels = [[draw(st.integers(0, len(names) - 1)) for _ in boxes] for _, boxes in content]
    return names, content, labels


def load(folder, names, content, labels):
    """Write a drawn data set as COCO and read it."""
    records, annotations = [], []
    for number, ((size, boxes), own) in enumerate(zip(content, labels, strict=True), start=1):
        name = f"{number}.png"
        Image.new("1", size).save(folder / name)
        records.append({"id": number, "file_name": name, "width": size[0], "height": size[1]})
        annotations += [
            {"image_id": number, "category_id": label, "bbox": box}
            for box, label in zip(boxes, own, strict=True)
        ]
    document = {
        "images": records,
        "annotations": [{"id": i, **a} for i, a in enumerate(annotations, start=1)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
    }
    (folder / "a.json").write_text(json.dumps(document))
    return load_coco(folder / "a.json", folder, split="train")


@settings(max_examples=20)
@given(drawn=datasets(), way=st.permutations(["coco", "yolo", "voc"]))
def test_a_data_set_comes_back_from_any_way_through_the_formats(drawn, way):
    if not any(boxes for _, boxes in drawn[1]):
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first = dataset = load(folder, *drawn)
        for step, form in enumerate(way):
            write_dataset({"train": [dataset]}, folder / str(step), form)
            found, parts = read_parts(Source(folder / str(step)))
            dataset = parts["train"]
            assert (found, list(parts)) == (form, ["train"])
            assert dataset.categories.names == first.categories.names
            assert np.array_equal(dataset.boxes_xywh, first.boxes_xywh)
            assert np.array_equal(dataset.labels, first.labels)
            assert dataset.digest() == first.digest()


@settings(max_examples=20)
@given(drawn=datasets())
def test_pixels_of_voc_are_whole_from_1_to_the_side_of_the_image(drawn):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = load(folder, *drawn)
        write_dataset({"train": [dataset]}, folder / "voc", "voc")
        for index in range(len(dataset)):
            root = read_xml(folder / "voc" / "Annotations" / f"{index + 1}.xml")
            written = [thing.find("bndbox") for thing in root.find_all("object")]
            rows = slice(*dataset.offsets[index : index + 2])
            for box, (x, y, w, h) in zip(written, dataset.boxes_xywh[rows], strict=True):
                corners = [float(box.text_of(s)) for s in ("xmin", "ymin", "xmax", "ymax")]
                assert corners == pytest.approx([x + 1, y + 1, x + w, y + h], abs=1e-9)
                assert min(corners[:2]) >= 1
                assert np.all(np.array(corners[2:]) <= dataset.sizes_wh[index] + 1e-9)
                if all(float(value).is_integer() for value in (x, y, w, h)):
                    assert "." not in "".join(child.text for child in box.children)


@settings(max_examples=100)
@given(
    shown=st.lists(st.sets(st.integers(0, 3)), min_size=4, max_size=60),
    share=st.sampled_from([0.1, 0.2, 0.5]),
    seed=st.integers(0, 5),
)
def test_a_share_is_near_to_what_was_asked_for_in_every_class(shown, share, seed):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        document = {
            "images": [
                {"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 64}
                for i in range(len(shown))
            ],
            "annotations": [
                {"id": 4 * i + k + 1, "image_id": i, "category_id": k, "bbox": [9 * k, 1, 8, 8]}
                for i, classes in enumerate(shown)
                for k in classes
            ],
            "categories": [{"id": k, "name": f"class {k}"} for k in range(4)],
        }
        (folder / "a.json").write_text(json.dumps(document))
        dataset = load_coco(folder / "a.json", folder, split="train")
    flags = held_out(dataset, share, seed=seed)
    # Each of the classes, the empty images and all images pull in their own direction.
    assert abs(flags.sum() - share * len(shown)) <= 3
    for k in range(4):
        has_class = np.array([k in classes for classes in shown])
        assert abs(flags[has_class].sum() - share * has_class.sum()) <= 3


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A YOLO and a VOC data set of one image, whose files are replaced."""
    folder = tmp_path_factory.mktemp("hostile")
    dataset = load(folder, ["cat"], [((37, 53), [[1, 1, 9, 9]])], [[0]])
    for form in ("yolo", "voc"):
        write_dataset({"train": [dataset]}, folder / form, form)
    return folder


FILES = ["yolo/data.yaml", "yolo/labels/train/1.txt", "voc/Annotations/1.xml"]
FILES += ["voc/ImageSets/Main/train.txt", "voc/labels.txt"]
PIECES = ["0", " ", "\n", "nan", "1e999", "-1", "0.5", "<object>", "</object>", "<bndbox>", "&a;"]
PIECES += ["<name>", "names:", "train:", "..", "/", "[", "{", "\x00", "\u202e", "é", "<!DOCTYPE a>"]


@settings(max_examples=150)
@given(
    name=st.sampled_from(FILES),
    cut=st.tuples(st.integers(0, 400), st.integers(0, 30)),
    pieces=st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=5)), max_size=8),
)
def test_whatever_a_file_holds_it_is_read_or_refused(hostile, name, cut, pieces):
    path = hostile / name
    before = path.read_bytes()
    start, length = cut
    inserted = "".join(pieces).encode("utf-8", errors="surrogatepass")
    path.write_bytes(before[:start] + inserted + before[start + length :])
    with suppress(DatasetError):
        dataset, problems, *_ = read_annotations(Source(hostile / name.split("/")[0]))
        assert np.isfinite(dataset.boxes).all()
        assert len(dataset) <= 1 or problems.refused
    path.write_bytes(before)
