"""Formats are found by the layout of a folder; what is missing or ambiguous is told."""

import pytest

from dyhead_det.data.formats.source import Source, find_source
from dyhead_det.errors import DatasetError


def touch(folder, *names):
    for name in names:
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


@pytest.mark.parametrize(
    ("files", "part", "form", "annotations", "images"),
    [
        (["train.json", "images/"], "train", "coco", "train.json", "images"),
        (["train.json", "train/"], "train", "coco", "train.json", "train"),
        (["train.json"], "train", "coco", "train.json", ""),
        (
            ["annotations/instances_val2017.json", "val2017/"],
            "val",
            "coco",
            "annotations/instances_val2017.json",
            "val2017",
        ),
        (
            ["valid/_annotations.coco.json"],
            "val",
            "coco",
            "valid/_annotations.coco.json",
            "valid",
        ),
        (["data.yaml", "images/"], "train", "yolo", "data.yaml", None),
        (["mine.yaml", "labels/"], "train", "yolo", "mine.yaml", None),
        (["ImageSets/Main/"], "val", "voc", "", None),
        (["train/a.xml"], "train", "voc", "", None),
    ],
)
def test_a_folder_tells_its_format(tmp_path, files, part, form, annotations, images):
    touch(tmp_path, *files)
    found = find_source(Source(tmp_path), part=part)
    assert (found.format, found.annotations) == (form, tmp_path / annotations)
    assert found.images == (None if images is None else tmp_path / images)
    assert found.split == part


def test_two_formats_are_told_apart_by_the_format_that_is_asked_for(tmp_path):
    touch(tmp_path, "train.json", "data.yaml")
    with pytest.raises(DatasetError, match=r"several formats \(coco: .*; yolo: .*data.format"):
        find_source(Source(tmp_path), part="train")
    assert find_source(Source(tmp_path, format="yolo"), part="train").format == "yolo"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ([], "coco: train.json.*yolo: data.yaml; voc: ImageSets/Main, or XML"),
        (["labels/", "images/"], "no data.yaml of a YOLO data set; write one"),
        (["VOC2007/ImageSets/Main/"], "give one of them: .*VOC2007"),
        (["val.json"], "no COCO file for train: no train.json"),
    ],
)
def test_what_is_missing_is_told(tmp_path, files, reason):
    touch(tmp_path, *files)
    with pytest.raises(DatasetError, match=reason):
        find_source(Source(tmp_path), part="train")


def test_a_file_tells_its_format_by_its_end(tmp_path):
    touch(tmp_path, "a.json", "a.yaml", "a.xml")
    assert find_source(Source(tmp_path / "a.json"), part="val").format == "coco"
    assert find_source(Source(tmp_path / "a.yaml"), part="val").format == "yolo"
    with pytest.raises(DatasetError, match="is a file; Pascal VOC data are given as a folder"):
        find_source(Source(tmp_path / "a.xml"), part="val")


def test_a_video_is_told_the_command_that_takes_it(tmp_path):
    touch(tmp_path, "a.MP4")
    with pytest.raises(DatasetError, match=r"a\.MP4 is a video; .*dyhead-det predict"):
        find_source(Source(tmp_path / "a.MP4"), part="train")
