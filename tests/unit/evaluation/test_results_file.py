"""Results files of any detector: scored as they are, or refused in one line."""

import json
import os

import pytest

from dyhead_det.errors import DatasetError
from dyhead_det.evaluation.results_file import evaluate_results

TRUTH = {
    "images": [{"id": 4, "file_name": "a.jpg"}, {"id": 9}],
    "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 4, "category_id": 7, "bbox": [10, 10, 20, 20], "iscrowd": 0},
        {"id": 2, "image_id": 9, "category_id": 7, "bbox": [0, 0, 50, 40.5], "area": 2025},
    ],
}
FOUND = {"image_id": 4, "category_id": 7, "bbox": [10, 10, 20, 20], "score": 0.5}


@pytest.fixture
def score(tmp_path):
    def score(results, truth=TRUTH):
        for name, content in (("results.json", results), ("truth.json", truth)):
            text = content if isinstance(content, str) else json.dumps(content)
            (tmp_path / name).write_text(text)
        return evaluate_results(
            tmp_path / "results.json", tmp_path / "truth.json", backend="pycocotools"
        )

    return score


def test_one_of_two_objects_found_gives_recall_and_precision_of_a_half(score):
    """Precision 1 up to recall 1/2, which is 51 of the 101 recalls, and 0 beyond."""
    result = score([FOUND])
    assert result.ap == pytest.approx(51 / 101)
    assert [(line.name, line.num_boxes, line.AP) for line in result.classes] == [
        ("dog", 0, None),
        ("cat", 2, pytest.approx(51 / 101)),
    ]


def test_no_detections_are_no_error(score):
    assert score([]).metrics["AP"] == 0


def test_ids_may_be_text(score):
    truth = json.loads(json.dumps(TRUTH).replace('"image_id": 4', '"image_id": "4"'))
    truth["images"][0]["id"] = "4"
    assert score([{**FOUND, "image_id": "4"}], truth).ap == pytest.approx(51 / 101)


def test_an_area_of_a_detection_is_that_of_its_box_whatever_the_file_says(score):
    small = {name: score([FOUND]).metrics[name] for name in ("APs", "APm", "APl")}
    lying = score([{**FOUND, "area": 1e6, "iscrowd": 1}]).metrics
    assert {name: lying[name] for name in small} == small


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({"annotations": [FOUND]}, "it is a list of detections"),
        ("[{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("\xff", "is not valid JSON"),
        ([FOUND, 7], "no JSON object (1 of 2 detections, from 0: 1)"),
        ([{**FOUND, "image_id": 5}], "image_id is not that of an image in"),
        ([{**FOUND, "image_id": True}], "image_id is not that of an image in"),
        ([{**FOUND, "image_id": [4]}], "image_id is not that of an image in"),
        ([{**FOUND, "category_id": 1}], "category_id is not that of a category in"),
        ([{**FOUND, "score": None}], "score is no number (1 of 1 detections, from 0: 0)"),
        ('[{"image_id": 4, "category_id": 7, "bbox": [1,1,1,1], "score": NaN}]', "score is no"),
        ([{**FOUND, "bbox": [1, 2, 3]}], "bbox is not [x, y, width, height]"),
        ([{**FOUND, "bbox": [1, 2, -3, 4]}], "bbox is not [x, y, width, height]"),
        ([{**FOUND, "bbox": [1, 2, 1e200, 1e200]}], "bbox is not [x, y, width, height]"),
        ([{"image_id": 4, "category_id": 7, "score": 1, "segmentation": []}], "bbox is not"),
    ],
)
def test_what_cannot_be_scored_is_one_line(score, results, message):
    with pytest.raises(DatasetError) as error:
        score(results)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, "it needs the lists images, annotations, categories"),
        ({"categories": [{"name": "cat"}]}, "id is neither a whole number nor text"),
        ({"images": [{"id": 4}]}, "image_id is not that of a listed image"),
        ({"annotations": [{**TRUTH["annotations"][0], "area": "big"}]}, "area is no number"),
        ({"annotations": [{**TRUTH["annotations"][0], "iscrowd": 2}]}, "iscrowd is neither"),
        ({"annotations": []}, "without a single annotated object"),
    ],
)
def test_ground_truth_that_cannot_be_used_is_one_line(score, change, message):
    with pytest.raises(DatasetError) as error:
        score([], {**TRUTH, **change})
    assert message in str(error.value)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    (tmp_path / "truth.json").write_text(json.dumps(TRUTH))
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "nowhere.json", "."):
        with pytest.raises(DatasetError, match="cannot be read"):
            evaluate_results(tmp_path / name, tmp_path / "truth.json", backend="auto")


@pytest.mark.parametrize("name", ["data.yaml", ""])
def test_other_formats_are_told_the_command_that_converts_them(tmp_path, name):
    (tmp_path / "results.json").write_text("[]")
    (tmp_path / "data.yaml").write_text("names: [cat]\n")
    with pytest.raises(DatasetError, match="become COCO by `dyhead-det data convert"):
        evaluate_results(tmp_path / "results.json", tmp_path / name, backend="pycocotools")
