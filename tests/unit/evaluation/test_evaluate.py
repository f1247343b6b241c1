"""Running a detector over a data set, and what is made of its detections."""

import json
import sys

import pytest
import torch
from torch import nn

from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.errors import ConfigError, DatasetError
from dyhead_det.evaluation import evaluate as evaluate_module
from dyhead_det.evaluation.coco_scores import evaluate_detections
from dyhead_det.evaluation.evaluate import (
    collect_detections,
    evaluate_detector,
    match_categories,
    to_coco,
    write_json,
    write_results,
)

CATS_AND_DOGS = CategoryMap((Category("cat", 7), Category("dog", 3)))
CPU = torch.device("cpu")


def ground_truth(*boxes, num_images=2, categories=CATS_AND_DOGS):
    """A COCO dictionary from (image id, category id, x, y, width, height[, iscrowd]) rows."""
    return {
        "images": [{"id": i + 1, "width": 200, "height": 200} for i in range(num_images)],
        "categories": [{"id": c.dataset_id, "name": c.name} for c in categories],
        "annotations": [
            {
                "id": i,  # from 0, which pycocotools alone takes for "no match"
                "image_id": row[0],
                "category_id": row[1],
                "bbox": list(row[2:6]),
                "area": row[4] * row[5],
                "iscrowd": row[6] if len(row) > 6 else 0,
            }
            for i, row in enumerate(boxes)
        ],
    }


def found(image_id, category_id, x, y, width, height, score=0.9):
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [x, y, width, height],
        "score": score,
    }


class KnowsTheAnswer(nn.Module):
    """Gives prepared predictions in turn, and keeps what it was fed."""

    def __init__(self, predictions):
        super().__init__()
        self.predictions = iter(predictions)
        self.seen = []

    def forward(self, images):
        self.seen += images
        assert not self.training
        assert not torch.is_grad_enabled()
        return [next(self.predictions) for _ in images]


def prediction(*rows):
    """From (x1, y1, x2, y2, score, label) rows."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return {"boxes": table[:, :4], "scores": table[:, 4], "labels": table[:, 5].long()}


@pytest.fixture
def loader():
    images = [torch.full((3, 8, 8), 255, dtype=torch.uint8), torch.zeros(3, 4, 6).byte()]
    return [([image], [{"image_id": i}]) for i, image in enumerate(images, start=1)]


def test_a_detection_speaks_xywh_and_the_ids_of_the_data_set(loader):
    detector = KnowsTheAnswer([prediction((10, 20, 40, 80, 0.25, 1)), prediction()])
    results, read_images = collect_detections(
        detector, loader, categories=CATS_AND_DOGS, device=CPU, progress=False
    )
    assert results == [found(1, 3, 10, 20, 30, 60, 0.25)]
    assert read_images == [1, 2]


def test_uint8_images_reach_the_detector_as_floats_up_to_one(loader):
    detector = KnowsTheAnswer([prediction(), prediction()])
    collect_detections(detector, loader, categories=CATS_AND_DOGS, device=CPU, progress=False)
    white, black = detector.seen
    assert white.dtype == torch.float32
    assert (white == 1).all()
    assert (black == 0).all()


@pytest.mark.parametrize("was_training", [True, False])
def test_the_detector_is_left_in_the_mode_it_was_in(loader, was_training):
    detector = KnowsTheAnswer([prediction(), prediction()]).train(was_training)
    collect_detections(detector, loader, categories=CATS_AND_DOGS, device=CPU, progress=False)
    assert detector.training is was_training


def test_boxes_are_written_to_a_thousandth_of_a_pixel_and_scores_exactly_enough():
    third = prediction((1 / 3, 0, 2 / 3, 1, 1 / 3, 0))
    (result,) = to_coco(third, 5, CATS_AND_DOGS)
    assert result["bbox"] == [0.333, 0.0, 0.333, 1.0]
    assert result["score"] == pytest.approx(1 / 3, abs=3e-8)  # float32 ends there


def test_the_same_names_with_other_ids_in_another_order_are_matched_by_name():
    dataset = [{"id": 1, "name": "dog"}, {"id": 90, "name": "cat"}]
    matched = match_categories(CATS_AND_DOGS, dataset)
    assert matched.names == ("cat", "dog")
    assert [category.dataset_id for category in matched] == [90, 1]


def test_other_names_are_an_error_naming_missing_and_extra_classes():
    dataset = [{"id": 1, "name": "dog"}, {"id": 2, "name": "horse"}]
    with pytest.raises(DatasetError) as error:
        match_categories(CATS_AND_DOGS, dataset)
    assert "missing in the data set: cat" in str(error.value)
    assert "unknown to the detector: horse" in str(error.value)


def test_a_detector_is_scored_with_the_ids_of_another_data_set(loader):
    other = CategoryMap((Category("dog", 1), Category("cat", 90)))
    truth = ground_truth((1, 90, 10, 20, 30, 60), (2, 1, 0, 0, 50, 50), categories=other)
    detector = KnowsTheAnswer(
        [prediction((10, 20, 40, 80, 0.9, 0)), prediction((0, 0, 50, 50, 0.8, 1))]
    )
    result, detections = evaluate_detector(
        detector,
        loader,
        ground_truth=truth,
        categories=CATS_AND_DOGS,
        device=CPU,
        backend="auto",
        progress=False,
    )
    assert result.ap == pytest.approx(1)
    assert {d["category_id"] for d in detections} == {90, 1}


def evaluate(loader, truth, *predictions):
    return evaluate_detector(
        KnowsTheAnswer(predictions),
        loader,
        ground_truth=truth,
        categories=CATS_AND_DOGS,
        device=CPU,
        backend="auto",
        progress=False,
    )


def test_objects_of_images_that_the_loader_left_out_are_not_missed(loader):
    """The only object of the image that was read is found: AP 1, whatever is in the other one."""
    truth = ground_truth((1, 7, 10, 20, 30, 60), (2, 7, 0, 0, 50, 50), (2, 3, 0, 0, 50, 50))
    result, _ = evaluate(loader[:1], truth, prediction((10, 20, 40, 80, 0.9, 0)))
    assert result.ap == pytest.approx(1)
    assert (result.num_images, result.num_boxes, result.num_unreadable_images) == (1, 1, 1)
    assert [(line.name, line.num_boxes, line.AP) for line in result.classes] == [
        ("cat", 1, pytest.approx(1)),
        ("dog", 0, None),
    ]
    assert "note: 1 of 2 images could not be read" in result.table()


def test_images_that_other_ranks_have_read_are_scored(loader, monkeypatch):
    """This rank reads image 1 and finds its object; the other one finds that of image 2."""
    from_other_rank = iter([[2], [found(2, 3, 0, 0, 50, 50)]])
    monkeypatch.setattr(
        evaluate_module, "gather_objects", lambda values: [*values, *next(from_other_rank)]
    )
    truth = ground_truth((1, 7, 10, 20, 30, 60), (2, 3, 0, 0, 50, 50))
    result, detections = evaluate(loader[:1], truth, prediction((10, 20, 40, 80, 0.9, 0)))
    assert result.num_unreadable_images == 0
    assert result.ap == pytest.approx(1)
    assert [line["image_id"] for line in detections] == [1, 2]


def test_images_without_objects_that_are_read_keep_their_false_positives(loader):
    """One of two detections of equal score is wrong: the second of the two in order of images."""
    truth = ground_truth((2, 7, 0, 0, 50, 50))
    wrong_and_right = [prediction((0, 0, 9, 9, 0.9, 0)), prediction((0, 0, 50, 50, 0.8, 0))]
    result, _ = evaluate(loader, truth, *wrong_and_right)
    assert result.num_unreadable_images == 0
    assert result.ap == pytest.approx(0.5)


def test_a_data_set_without_a_readable_image_is_an_error(loader):
    with pytest.raises(DatasetError, match="none of the 2 images to evaluate on can be read"):
        evaluate([], ground_truth((2, 7, 0, 0, 50, 50)))


def test_readable_images_without_an_object_are_an_error(loader):
    with pytest.raises(DatasetError, match="only 1 of 2 images can be read, and these have no"):
        evaluate(loader[:1], ground_truth((2, 7, 0, 0, 50, 50)), prediction())


def test_what_cannot_be_scored_is_told_before_the_detector_runs(loader):
    detector = KnowsTheAnswer([])
    with pytest.raises(DatasetError, match="2 images without a single annotated object"):
        evaluate_detector(
            detector,
            loader,
            ground_truth=ground_truth((1, 7, 0, 0, 20, 20, 1)),
            categories=CATS_AND_DOGS,
            device=CPU,
            backend="pycocotools",
            progress=False,
        )
    assert detector.seen == []


def test_a_backend_that_is_not_installed_is_an_error_saying_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)  # importing it fails now
    truth = ground_truth((1, 7, 0, 0, 20, 20))
    with pytest.raises(ConfigError, match="pip install faster-coco-eval"):
        evaluate_detections(truth, [], CATS_AND_DOGS, backend="faster-coco-eval")
    assert evaluate_detections(truth, [], CATS_AND_DOGS, backend="auto").backend == "pycocotools"


def test_a_class_without_ground_truth_has_no_number_and_is_shown_as_a_dash():
    result = evaluate_detections(
        ground_truth((1, 7, 0, 0, 20, 20)),
        [found(1, 7, 0, 0, 20, 20), found(2, 3, 5, 5, 9, 9)],
        CATS_AND_DOGS,
        backend="auto",
    )
    cat, dog = result.classes
    assert (cat.AP, cat.AP50, cat.num_boxes) == (pytest.approx(1), pytest.approx(1), 1)
    assert (dog.AP, dog.AP50, dog.num_boxes) == (None, None, 0)
    assert result.metrics["APl"] is None
    assert result.table().splitlines()[-1].split() == ["dog", "0", "-", "-", "0.900"]


@pytest.mark.parametrize("backend", ["pycocotools", "faster-coco-eval"])
def test_classes_without_objects_change_no_number_and_take_no_memory(backend):
    rows, detections = (1, 7, 0, 0, 20, 20), [found(1, 7, 0, 0, 20, 20), found(2, 3, 5, 5, 9, 9)]
    many = CategoryMap((*CATS_AND_DOGS, *(Category(f"c{i}", 100 + i) for i in range(20_000))))
    results = [
        evaluate_detections(
            ground_truth(rows, categories=categories), detections, categories, backend=backend
        )
        for categories in (CATS_AND_DOGS, many)
    ]
    assert results[0].metrics == results[1].metrics
    assert results[0].classes == results[1].classes[:2]
    assert {(line.AP, line.num_boxes) for line in results[1].classes[2:]} == {(None, 0)}


def test_the_table_shows_twelve_numbers_and_every_class():
    table = evaluate_detections(
        ground_truth((1, 7, 0, 0, 20, 20), (2, 3, 0, 0, 50, 50)),
        [found(1, 7, 0, 0, 20, 20)],
        CATS_AND_DOGS,
        backend="auto",
    ).table()
    lines = table.splitlines()
    assert lines[2].split() == ["AP", "AP50", "AP75", "APs", "APm", "APl"]
    assert lines[3].split() == ["0.500", "0.500", "0.500", "1.000", "0.000", "-"]
    assert lines[4].split() == ["AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
    assert lines[-2].split() == ["cat", "1", "1.000", "1.000", "0.900"]
    assert lines[-1].split() == ["dog", "1", "0.000", "0.000", "0.900"]


def test_nothing_is_printed_and_what_was_given_stays_as_it_was(capsys):
    truth = ground_truth((1, 7, 0, 0, 20, 20))
    detections = [found(1, 7, 0, 0, 20, 20)]
    before = json.dumps([truth, detections])
    for backend in ("pycocotools", "faster-coco-eval"):
        evaluate_detections(truth, detections, CATS_AND_DOGS, backend=backend)
    assert capsys.readouterr().out == ""
    assert json.dumps([truth, detections]) == before


def test_results_are_written_as_json_that_other_tools_read(tmp_path):
    detections = [found(1, 7, 0, 0, 20, 20)]
    result = evaluate_detections(
        ground_truth((1, 7, 0, 0, 20, 20)), detections, CATS_AND_DOGS, backend="pycocotools"
    )
    folder = tmp_path / "run" / "eval"
    write_results(folder, result, detections)
    assert json.loads((folder / "detections.json").read_text()) == detections
    written = json.loads((folder / "metrics.json").read_text())
    assert written["metrics"] == result.metrics
    assert [line["name"] for line in written["classes"]] == ["cat", "dog"]
    assert written["classes"][1]["AP"] is None


def test_a_file_that_cannot_be_written_whole_leaves_the_old_one(tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, {"AP": 0.5}, indent=None)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"AP": float("nan")}, indent=None)
    assert json.loads(path.read_text()) == {"AP": 0.5}
    assert list(tmp_path.iterdir()) == [path]
