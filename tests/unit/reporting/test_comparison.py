"""Detectors beside each other: the same data, and intervals of paired images."""

import csv
import json
import math

import pytest
from PIL import Image

from dyhead_det.errors import ConfigError, DatasetError
from dyhead_det.evaluation.coco_scores import evaluate_detections
from dyhead_det.evaluation.evaluate import write_results
from dyhead_det.reporting.comparison import compare
from dyhead_det.reporting.scored import read_scored
from dyhead_det.visualize.comparison_plot import plot_comparison

from made_up_data import CATEGORIES, made_up


@pytest.fixture
def evaluations(tmp_path):
    """Two folders of `eval` on one file of annotations, the second with less found."""
    truth, false = made_up(3, num_images=30, crowds=0)
    right = [{**each, "score": 0.9} for each in truth["annotations"]]
    detections = [
        {key: each[key] for key in ("image_id", "category_id", "bbox", "score")}
        for each in [*right, *false[::2]]
    ]
    annotations = tmp_path / "val.json"
    annotations.write_text(json.dumps(truth))
    fewer = [each for each in detections if each["image_id"] % 3]
    for name, found in (("all", detections), ("fewer", fewer)):
        result = evaluate_detections(truth, found, CATEGORIES, backend="pycocotools")
        write_results(tmp_path / name, result, found, annotations=annotations)
    return tmp_path


def rows(*entries):
    return "".join(json.dumps(row) + "\n" for row in entries)


def test_a_difference_has_the_interval_of_a_paired_bootstrap(evaluations):
    scored = [read_scored(evaluations / name, None) for name in ("all", "fewer")]
    got = compare(scored, num_resamples=200)
    (nothing, difference) = got.differences
    assert nothing is None
    assert difference.value == pytest.approx(scored[1].metrics["AP"] - scored[0].metrics["AP"])
    assert difference.low < difference.value < difference.high < 0
    assert difference.text() in got.text()
    (_, equal) = compare([scored[0], scored[0]], num_resamples=50).differences
    assert (equal.value, equal.low, equal.high) == (0, 0, 0)


def test_results_files_are_scored_and_equal_their_evaluation(evaluations):
    file = evaluations / "fewer" / "detections.json"
    scored = read_scored(file, evaluations / "val.json")
    evaluation = read_scored(evaluations / "fewer" / "metrics.json", None)
    assert scored.metrics == pytest.approx(evaluation.metrics)
    assert compare([scored, evaluation], num_resamples=20).differences[1].value == pytest.approx(0)
    with pytest.raises(ConfigError, match="COCO results need --data"):
        read_scored(file, None)


def test_table_and_plot_are_written(evaluations, tmp_path):
    scored = [read_scored(evaluations / name, None) for name in ("all", "fewer")]
    compare(scored, num_resamples=0).write(tmp_path)
    with (tmp_path / "compare.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["AP"] for line in lines] == [f"{each.metrics['AP']:.3f}" for each in scored]
    assert json.loads((tmp_path / "compare.json").read_text())[1]["difference"] is None
    with Image.open(tmp_path / "compare.png") as picture:
        picture.load()


def test_runs_have_their_best_numbers_and_a_curve(evaluations, tmp_path):
    best = {"step": 20, "AP": 0.5, "AP50": 0.7, "AP/cat": 0.5, "num_images": 30, "num_boxes": 9}
    rest = {"step": 30, "AP": 0.4, "AP50": 0.6, "AP/cat": 0.4, "num_images": 30, "num_boxes": 9}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text(rows({"step": 10, "loss": 1.0}, best, rest))
    got = read_scored(tmp_path / "run", None)
    assert (got.metrics, got.classes) == ({"AP": 0.5, "AP50": 0.7}, {"cat": 0.5})
    assert got.curve == [(20, 0.5), (30, 0.4)]
    assert got.data == (30, 9)
    assert got.detections is None
    compare([got, got], num_resamples=5).write(tmp_path)


def test_curves_are_drawn_where_a_run_was_evaluated_twice():
    bars = {"totals": [0.5, None], "classes": [[0.5], [None]], "class_names": ["cat"]}
    for curves, num_panels in (([[(1, 0.5)], []], 1), ([[(1, 0.5), (2, 0.6)], [(1, 0.5)]], 2)):
        figure = plot_comparison(names=["a", "b"], curves=curves, **bars)
        assert len(figure.axes) == num_panels
    rows = [row.get_text() for row in figure.axes[-1].get_yticklabels()]
    assert rows == ["all classes", "cat"]


def test_a_run_takes_the_detections_of_an_evaluation_of_its_best_checkpoint(evaluations):
    ap = json.loads((evaluations / "all" / "metrics.json").read_text())["metrics"]["AP"]
    run = evaluations / "run"
    run.mkdir()
    (evaluations / "all").rename(run / "eval")
    for best, expected in ((ap, run / "eval" / "detections.json"), (ap + 0.1, None)):
        (run / "metrics.jsonl").write_text(rows({"step": 1, "AP": best}))
        assert read_scored(run, None).detections == expected


def test_different_data_are_one_clear_error(evaluations):
    scored = [read_scored(evaluations / name, None) for name in ("all", "fewer")]
    content = json.loads((evaluations / "fewer" / "metrics.json").read_text())
    (evaluations / "fewer" / "metrics.json").write_text(json.dumps({**content, "num_boxes": 1}))
    other = read_scored(evaluations / "fewer", None)
    with pytest.raises(DatasetError, match=r"scored on different data.*with 1 objects"):
        compare([scored[0], other], num_resamples=0)


def test_there_is_no_interval_over_other_images_than_those_that_were_scored(evaluations, caplog):
    truth = json.loads((evaluations / "val.json").read_text())
    objects = [each for each in truth["annotations"] if each["image_id"] % 2]
    more = [{**each, "id": 10_000 + each["id"], "image_id": 1000} for each in objects]
    images = [*truth["images"], {"id": 1000, "width": 640, "height": 480}]
    whole = {**truth, "images": images, "annotations": [*truth["annotations"], *more]}
    (evaluations / "val.json").write_text(json.dumps(whole))  # of which a share was held out
    scored = [read_scored(evaluations / name, None) for name in ("all", "fewer")]
    assert compare(scored, num_resamples=5).differences == [None, None]
    assert "was scored on other images or classes than those of" in caplog.text


def test_there_is_no_interval_for_annotations_that_are_not_coco(evaluations):
    for name in ("all", "fewer"):
        path = evaluations / name / "metrics.json"
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "annotations": str(evaluations)}))
    scored = [read_scored(evaluations / name, None) for name in ("all", "fewer")]
    assert compare(scored, num_resamples=5).differences == [None, None]


def test_annotations_that_are_gone_are_one_clear_error(evaluations):
    scored = [read_scored(evaluations / name, None) for name in ("all", "fewer")]
    (evaluations / "val.json").unlink()
    with pytest.raises(DatasetError, match=r"val.json cannot be read"):
        compare(scored, num_resamples=5)


@pytest.mark.parametrize("content", ["{", '{"metrics": 3}', '{"metrics": {"AP": "x"}}'])
def test_damaged_numbers_are_one_clear_error(tmp_path, content):
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(DatasetError, match=r"metrics\.json"):
        read_scored(tmp_path, None)


def test_what_is_no_result_is_named(tmp_path):
    with pytest.raises(ConfigError, match="holds neither a run"):
        read_scored(tmp_path, None)
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"other.json: is neither"):
        read_scored(tmp_path / "other.json", None)
    (tmp_path / "metrics.jsonl").write_text(rows({"step": 1, "loss": 2.0}))
    with pytest.raises(DatasetError, match="nothing was evaluated"):
        read_scored(tmp_path, None)


def test_nothing_is_nan(evaluations):
    scored = [read_scored(evaluations / name, None) for name in ("all", "fewer")]
    difference = compare(scored, num_resamples=10).differences[1]
    assert not any(map(math.isnan, (difference.value, difference.low, difference.high)))
