"""Pascal VOC: inclusive pixels from 1 on, difficult objects, lists, and hostile XML."""

import pytest
from PIL import Image

from dyhead_det.data.formats.read import load_annotations, read_annotations
from dyhead_det.data.formats.source import Source
from dyhead_det.errors import DatasetError

OBJECT = """<object><name>{name}</name>{more}<bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>
<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"""


def xml(*objects, filename="a.jpg", size=(100, 50)):
    width, height = size
    return (
        f"<annotation><filename>{filename}</filename><size><width>{width}</width>"
        f"<height>{height}</height></size>\n{''.join(objects)}</annotation>"
    )


def thing(name="cat", box=(1, 1, 100, 50), more=""):
    return OBJECT.format(name=name, box=box, more=more)


@pytest.fixture
def folder(tmp_path):
    """The layout of the challenge, one image of 100 x 50 pixels."""
    for name in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (tmp_path / name).mkdir(parents=True)
    Image.new("RGB", (100, 50)).save(tmp_path / "JPEGImages" / "a.jpg")
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    write(tmp_path, xml(thing()))
    return tmp_path


def write(folder, text, name="a"):
    (folder / "Annotations" / f"{name}.xml").write_text(text)


def load(folder, **options):
    return load_annotations(Source(folder, **options))


def test_pixels_are_counted_from_1_and_the_last_one_is_included(folder):
    write(folder, xml(thing(), thing(box=(11, 21, 30, 40)), thing(box=(5, 5, 5, 5))))
    assert load(folder).boxes_xywh.tolist() == [[0, 0, 100, 50], [10, 20, 20, 20], [4, 4, 1, 1]]


def test_a_box_from_pixel_0_is_told(folder):
    write(folder, xml(thing(box=(0, 0, 20, 20))))
    dataset, problems, *_ = read_annotations(Source(folder))
    assert dataset.boxes_xywh.tolist() == [[0, 0, 20, 20]]
    ((kind, titles),) = problems.repaired.items()
    assert "Pascal VOC counts from 1" in kind
    assert titles == ["a.xml:2"]


def test_difficult_objects_are_ignored_as_crowds_are(folder):
    write(folder, xml(thing(), thing(box=(1, 1, 5, 5), more="<difficult>1</difficult>")))
    dataset, problems, *_ = read_annotations(Source(folder))
    assert dataset.is_crowd.tolist() == [False, True]
    assert len(dataset.target(0)["labels"]) == 1
    assert list(problems.noted) == ["objects marked difficult, ignored in training and scoring"]


def test_boxes_of_parts_are_not_those_of_the_object(folder):
    part = "<part><name>head</name><bndbox><xmin>2</xmin></bndbox></part>"
    write(folder, xml(thing(more=part)))
    assert load(folder).boxes_xywh.tolist() == [[0, 0, 100, 50]]


def test_classes_are_alphabetical_or_those_of_labels_txt(folder):
    write(folder, xml(thing("dog"), thing("cat", box=(1, 1, 9, 9))))
    assert load(folder).categories.names == ("cat", "dog")
    (folder / "labels.txt").write_text("dog\nbird\ncat\n")
    assert load(folder).categories.names == ("dog", "bird", "cat")
    (folder / "labels.txt").write_text("dog\n")
    with pytest.raises(DatasetError, match=r"labels.txt does not name: 1 \(a.xml:\d: cat"):
        load(folder)


def test_lists_may_hold_flags_and_other_splits_are_named(folder):
    sets = folder / "ImageSets" / "Main"
    (sets / "trainval.txt").write_text("a  -1\n")
    assert list(load(folder, split="trainval").file_names) == ["a.jpg"]
    with pytest.raises(DatasetError, match=r"has no val.txt; it has: train, trainval"):
        load_annotations(Source(folder), part="val")


@pytest.mark.parametrize("name", ["/etc/passwd", "../a", "//x"])
def test_a_list_does_not_lead_out_of_the_folder(folder, name):
    (folder / "ImageSets" / "Main" / "train.txt").write_text(f"{name}\n")
    with pytest.raises(DatasetError, match=r"train\.txt names no annotation"):
        load(folder)


def test_what_is_listed_and_not_there_is_refused(folder):
    (folder / "ImageSets" / "Main" / "train.txt").write_text("a\nz\n")
    with pytest.raises(DatasetError, match=r"listed and not there: 1 \(z.xml\)"):
        load(folder)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<annotation>", "no XML: 1 .a.xml: line 1: no element found"),
        ("", "no XML: 1 .a.xml: line 1: no element found"),
        ("<kml></kml>", "no annotations of Pascal VOC: 1 .a.xml"),
        (
            '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><annotation>&b;</annotation>',
            "line 1: a document type .DOCTYPE. is refused",
        ),
        (
            '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><annotation>&f;</annotation>',
            "a document type .DOCTYPE. is refused",
        ),
        ("<annotation>" + "<a>" * 5000, "nested too deep"),
        (xml(thing(box=("one", 1, 2, 2))), "malformed bbox or segmentation: 1 .a.xml:2"),
        (xml(thing(name="")), "unknown category: 1 .a.xml:2"),
    ],
)
def test_what_is_no_annotation_is_refused_with_its_line(folder, text, reason):
    write(folder, text)
    write(folder, xml(thing()), name="b")
    (folder / "ImageSets" / "Main" / "train.txt").write_text("b\na\n")
    with pytest.raises(DatasetError, match=reason):
        load(folder)


def test_a_document_type_is_refused_in_another_encoding_too(folder):
    text = '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE x [<!ENTITY a "a">]><annotation/>'
    (folder / "Annotations" / "a.xml").write_bytes(text.encode("utf-16"))
    with pytest.raises(DatasetError, match="a document type"):
        load(folder)


@pytest.mark.parametrize("filename", ["a.jpg", "a", "C:\\photos\\a.jpg", "gone.png", ""])
def test_the_image_is_found_by_its_name_or_by_that_of_the_xml_file(folder, filename):
    write(folder, xml(thing(), filename=filename))
    assert load(folder).image_file(0).is_file()


def test_a_size_that_is_missing_is_read_from_the_image(folder):
    write(folder, xml(thing(), size=(0, 0)))
    assert load(folder).size_wh(0) == (100, 50)


def test_any_folder_of_xml_files_is_read(tmp_path):
    for part, name in (("train", "a"), ("valid", "b")):
        (tmp_path / part).mkdir()
        Image.new("RGB", (100, 50)).save(tmp_path / part / f"{name}.jpg")
        (tmp_path / part / f"{name}.xml").write_text(xml(thing(), filename=f"{name}.jpg"))
    assert load(tmp_path).image_file(0) == tmp_path / "train" / "a.jpg"
    validation = load_annotations(Source(tmp_path), part="val")
    assert validation.image_file(0) == tmp_path / "valid" / "b.jpg"
    assert list(load(tmp_path / "valid").file_names) == ["b.jpg"]
    with pytest.raises(DatasetError, match=r"data.val: \{split: 0.2\}"):
        load_annotations(Source(tmp_path / "train"), part="val")


def test_images_of_a_folder_of_annotations_lie_beside_it(folder):
    assert load(folder / "Annotations").image_file(0) == folder / "JPEGImages" / "a.jpg"
