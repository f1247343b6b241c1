"""The report of an evaluation: numbers, pictures, hostile names, and the same as files."""

import csv
import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.evaluation.coco_scores import evaluate_detections
from dyhead_det.evaluation.speed import Speed
from dyhead_det.reporting.evaluation_report import ImagesById, images_in, write_report

from html_pages import read_page
from made_up_data import CATEGORIES, made_up

HOSTILE = '</td><script>alert("x")</script>$x_1$ --> \x1b[31m\n='
PIXELS = torch.full((3, 80, 100), 128, dtype=torch.uint8)


def evaluated(*, categories=CATEGORIES, seed=1, **changes):
    truth, detections = made_up(seed, num_images=20)
    result = evaluate_detections(
        truth, detections, categories, backend="pycocotools", with_analysis=True
    )
    return replace(result, **changes)


def test_a_report_shows_the_numbers_and_is_there_as_files(tmp_path):
    result = evaluated(speed=Speed(1, 2, 30, 4, num_images=19, batch_size=4.0))
    images = ImagesById(lambda image_id: f"photo {image_id}", lambda _image_id: PIXELS)
    write_report(tmp_path, result, title="best.pt", images=images)
    page = read_page(tmp_path / "report.html")
    assert page.needs_nothing
    assert page.rows["cat"][:2] == [
        str(result.classes[0].num_boxes),
        f"{result.classes[0].AP:.3f}",
    ]
    assert page.rows["model"] == ["30.0", "81%"]
    assert page.tags.count("svg") == 7
    assert page.tags.count("img") == 2 * len(result.analysis.worst)
    worst = result.analysis.worst[0]
    assert f"photo {worst.image_id}: " in page.text
    with (tmp_path / "images.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["file"] for line in lines] == [f"photo {number}" for number in range(1, 21)]
    assert (
        sum(int(line["objects found"]) for line in lines)
        == result.analysis.confusion[:-1, :-1].trace()
    )
    assert json.loads((tmp_path / "analysis.json").read_text())["classes"] == ["cat", "dog", "rare"]
    pictures = sorted(path.name for path in tmp_path.glob("*.png"))
    assert pictures == [
        "calibration.png",
        "confusion.png",
        "crowding.png",
        "errors.png",
        "precision_recall.png",
        "scores.png",
        "sizes.png",
        "worst_images.png",
    ]
    for name in pictures:
        with Image.open(tmp_path / name) as picture:
            picture.load()


def test_hostile_names_are_text(tmp_path):
    categories = CategoryMap((Category(HOSTILE, 3), Category("_dog", 5), Category("猫", 9)))
    result = evaluated(categories=categories, notes=(HOSTILE,))
    images = ImagesById(lambda _image_id: HOSTILE, lambda _image_id: PIXELS)
    write_report(tmp_path, result, title=HOSTILE, images=images)
    page = read_page(tmp_path / "report.html")
    assert page.needs_nothing
    shown = HOSTILE.replace("\x1b", "\\x1b").replace("\n", "\\n")
    assert shown in page.rows
    assert f"annotated in {shown}" in page.pictures
    assert "猫" in page.rows


@pytest.mark.parametrize("num_classes", [1, 45])
def test_one_class_and_many_have_a_report(tmp_path, num_classes):
    truth, detections = made_up(4, num_images=60)
    ids = range(1, num_classes + 1)
    for number, each in enumerate([*truth["annotations"], *detections]):
        each["category_id"] = 1 + number % num_classes
    truth["categories"] = [{"id": i} for i in ids]
    categories = CategoryMap(tuple(Category(f"class {i}", i) for i in ids))
    result = evaluate_detections(
        truth, detections, categories, backend="pycocotools", with_analysis=True
    )
    write_report(tmp_path, result, title="t")
    assert f"class {num_classes}" in read_page(tmp_path / "report.html").rows


def test_nothing_detected_has_a_report(tmp_path):
    truth, _ = made_up(1)
    result = evaluate_detections(truth, [], CATEGORIES, backend="pycocotools", with_analysis=True)
    write_report(tmp_path, result, title="t")
    assert read_page(tmp_path / "report.html").rows["missed"][0] == str(result.num_boxes)


def test_without_an_analysis_there_is_none(tmp_path):
    with pytest.raises(ValueError, match="without its analysis"):
        write_report(tmp_path, evaluated(analysis=None), title="t")


def test_images_of_a_results_file_are_found_by_name_or_warned_of(tmp_path, caplog):
    Image.new("RGB", (9, 8)).save(tmp_path / "a.png")
    source = images_in(
        tmp_path,
        [
            {"id": 1, "original_id": "x", "file_name": "a.png"},
            {"id": 2, "original_id": "y", "file_name": None},
        ],
    )
    assert source.name(2) == "image y"
    assert source.read(1).shape == (3, 8, 9)
    assert source.read(2) is None
    assert "left out" in caplog.text
