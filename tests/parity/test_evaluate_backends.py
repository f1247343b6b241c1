"""Our numbers are those of pycocotools' own summary, whichever backend computes them."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.evaluation.coco_scores import evaluate_detections
from dyhead_det.evaluation.results_file import evaluate_results

BACKENDS = ["pycocotools", "faster-coco-eval"]
COCO_CC = Path(__file__).parents[2].parent / "shared" / "data" / "coco_cc" / "val.json"
# Precision contains tp / (tp + fp + 2e-16), in one of the two libraries.
TOLERANCE = 1e-12


def categories_of(ground_truth):
    return CategoryMap(tuple(Category(c["name"], c["id"]) for c in ground_truth["categories"]))


def summary_of_pycocotools(ground_truth, detections):
    """The 12 numbers by the documented use of pycocotools: loadRes, evaluate, summarize."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = json.loads(json.dumps(ground_truth))
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(json.loads(json.dumps(detections))), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


def average_precision_of_pycocotools(ground_truth, detections, category_id):
    """AP of one class by an evaluation restricted to that class."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = json.loads(json.dumps(ground_truth))
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(json.loads(json.dumps(detections))), "bbox")
        evaluation.params.catIds = [category_id]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[0]


def noisy_data(seed, num_images=12, num_classes=4, per_image=25):
    """Boxes from 4 to 180 pixels, some crowds; detections moved, mislabeled, doubled, missing."""
    random = np.random.default_rng(seed)
    ids = [3, 8, 41, 90][:num_classes]
    annotations, detections = [], []
    for image_id in range(100, 100 + num_images):
        for _ in range(per_image):
            width, height = np.exp(random.uniform(np.log(4), np.log(180), 2))
            box = [*random.uniform(0, 300, 2), width, height]
            category_id = int(random.choice(ids))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category_id,
                    "bbox": [round(float(v), 2) for v in box],
                    "area": round(float(width * height), 2),
                    "iscrowd": int(random.random() < 0.08),
                }
            )
            for _ in range(random.integers(0, 8)):
                moved = np.array(box) + random.normal(0, 0.08, 4) * [width, height, width, height]
                wrong = random.random() < 0.2
                detections.append(
                    {
                        "image_id": image_id,
                        "category_id": int(random.choice(ids)) if wrong else category_id,
                        "bbox": [round(float(v), 2) for v in np.maximum(moved, 0.5)],
                        "score": round(float(random.random()), 2),  # many ties
                    }
                )
    ground_truth = {
        "images": [{"id": i, "width": 500, "height": 500} for i in range(100, 101 + num_images)],
        "categories": [{"id": i, "name": f"class {i}"} for i in reversed(ids)],
        "annotations": annotations,
    }
    return ground_truth, detections


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(3))
def test_the_twelve_numbers_are_those_of_pycocotools_summary(seed, backend):
    ground_truth, detections = noisy_data(seed)
    result = evaluate_detections(
        ground_truth, detections, categories_of(ground_truth), backend=backend
    )
    expected = summary_of_pycocotools(ground_truth, detections)
    assert list(result.metrics.values()) == pytest.approx(expected, abs=TOLERANCE)
    assert 0.05 < result.ap < 0.95  # the comparison is worth something


@pytest.mark.parametrize("backend", BACKENDS)
def test_more_than_a_hundred_detections_of_a_class_are_cut_as_coco_does(backend):
    ground_truth, detections = noisy_data(7, num_images=2, num_classes=1, per_image=60)
    assert len(detections) > 2 * 150
    result = evaluate_detections(
        ground_truth, detections, categories_of(ground_truth), backend=backend
    )
    expected = summary_of_pycocotools(ground_truth, detections)
    assert list(result.metrics.values()) == pytest.approx(expected, abs=TOLERANCE)
    by_score = sorted(detections, key=lambda d: -d["score"])
    weakest = [d for d in by_score if d["image_id"] == 100][150:]
    kept = [d for d in detections if d not in weakest]
    without_weakest = evaluate_detections(
        ground_truth, kept, categories_of(ground_truth), backend=backend
    )
    assert without_weakest.metrics == result.metrics


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_class_has_the_number_of_an_evaluation_of_that_class_alone(backend):
    ground_truth, detections = noisy_data(11)
    categories = categories_of(ground_truth)
    result = evaluate_detections(ground_truth, detections, categories, backend=backend)
    for category, line in zip(categories, result.classes, strict=True):
        expected = average_precision_of_pycocotools(ground_truth, detections, category.dataset_id)
        assert line.name == category.name
        assert pytest.approx(expected, abs=TOLERANCE) == line.AP


@pytest.mark.parametrize("backend", BACKENDS)
def test_ground_truth_as_detections_gives_one(backend):
    ground_truth, _ = noisy_data(5)
    detections = perfect_detections(ground_truth)
    result = evaluate_detections(
        ground_truth, detections, categories_of(ground_truth), backend=backend
    )
    for name in ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100"):
        assert result.metrics[name] == pytest.approx(1, abs=TOLERANCE)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_detections_give_zeros(backend):
    ground_truth, _ = noisy_data(5)
    result = evaluate_detections(ground_truth, [], categories_of(ground_truth), backend=backend)
    assert set(result.metrics.values()) == {0.0}
    assert {line.AP for line in result.classes} == {0.0}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("is_crowd", "expected"), [(1, 1), (0, 51 / 101 / 3)])
def test_detections_inside_a_crowd_are_no_false_positives(backend, is_crowd, expected):
    """Two guesses better scored than the true one lie inside a region of 100 x 100.

    As a crowd the region takes any number of detections without counting them: AP 1. As one object
    it matches none of them (IoU .04): two false positives before the true one give precision 1/3
    up to recall 1/2 and 0 beyond. Recall 0, .01 .. .50 are 51 of 101 points: 51 / 101 / 3.
    """
    ground_truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [
            _annotation(0, [0, 0, 100, 100], is_crowd),
            _annotation(1, [200, 200, 50, 50], 0),
        ],
    }
    detections = [
        {"image_id": 1, "category_id": 1, "bbox": box, "score": score}
        for box, score in [
            ([10, 10, 20, 20], 0.9),
            ([50, 50, 20, 20], 0.8),
            ([200, 200, 50, 50], 0.7),
        ]
    ]
    result = evaluate_detections(
        ground_truth, detections, categories_of(ground_truth), backend=backend
    )
    assert result.ap == pytest.approx(expected)
    assert result.num_boxes == (1 if is_crowd else 2)


@pytest.mark.real_data
@pytest.mark.parametrize("backend", BACKENDS)
def test_ground_truth_of_photographs_as_detections_gives_one(backend):
    if not COCO_CC.exists():
        pytest.skip("photographs are not here")
    ground_truth = json.loads(COCO_CC.read_text())
    result = evaluate_detections(
        ground_truth,
        perfect_detections(ground_truth),
        categories_of(ground_truth),
        backend=backend,
    )
    for name in ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100"):
        assert result.metrics[name] == pytest.approx(1, abs=TOLERANCE)
    assert len(result.classes) == 80


def perfect_detections(ground_truth):
    return [
        {key: annotation[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9}
        for annotation in ground_truth["annotations"]
        if not annotation["iscrowd"]
    ]


def _annotation(annotation_id, bbox, is_crowd):
    return {
        "id": annotation_id,
        "image_id": 1,
        "category_id": 1,
        "bbox": bbox,
        "area": bbox[2] * bbox[3],
        "iscrowd": is_crowd,
    }


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_results_file_has_the_numbers_of_pycocotools_to_the_last_digit(tmp_path, backend):
    """Neither boxes that reach out of their image nor ids in any order change that."""
    ground_truth, detections = noisy_data(23)
    for line in ground_truth["annotations"][::5]:
        line["bbox"][0] -= 400
    (tmp_path / "truth.json").write_text(json.dumps(ground_truth))
    (tmp_path / "results.json").write_text(json.dumps(detections))
    result = evaluate_results(tmp_path / "results.json", tmp_path / "truth.json", backend=backend)
    expected = summary_of_pycocotools(ground_truth, detections)
    assert list(result.metrics.values()) == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("backend", BACKENDS)
def test_another_limit_of_detections_is_that_of_pycocotools_parameter(backend):
    ground_truth, detections = noisy_data(7, num_images=2, num_classes=1, per_image=60)
    result = evaluate_detections(
        ground_truth,
        detections,
        categories_of(ground_truth),
        backend=backend,
        max_detections=150,
    )
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = json.loads(json.dumps(ground_truth))
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(json.loads(json.dumps(detections))), "bbox")
        evaluation.params.maxDets = [1, 10, 150]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 0, 2]  # (T, R, K), all areas, 150 detections
    assert result.ap == pytest.approx(precision.mean(), abs=TOLERANCE)
    assert result.metrics["AR150"] == pytest.approx(
        evaluation.eval["recall"][..., 0, 2].mean(), abs=TOLERANCE
    )
    assert (
        result.ap
        > evaluate_detections(
            ground_truth, detections, categories_of(ground_truth), backend=backend
        ).ap
    )
