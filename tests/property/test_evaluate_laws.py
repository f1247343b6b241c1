"""What the numbers may and may not depend on, over generated boxes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.evaluation.coco_scores import evaluate_detections

CATEGORIES = CategoryMap((Category("a", 5), Category("b", 2)))
sizes = st.integers(2, 120).map(float)
places = st.integers(0, 200).map(float)
boxes = st.tuples(places, places, sizes, sizes).map(list)
objects = st.tuples(st.sampled_from([1, 2, 3]), st.sampled_from([5, 2]), boxes)


@st.composite
def data_sets(draw):
    """Ground truth with at least one object, and detections that often hit, in random order."""
    truth = draw(st.lists(objects, min_size=1, max_size=8))
    guesses = draw(st.lists(st.one_of(st.sampled_from(truth), objects), max_size=12))
    scores = draw(st.permutations(range(1, len(guesses) + 1)))
    annotations = [
        {
            "id": i,
            "image_id": image_id,
            "category_id": category_id,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
        }
        for i, (image_id, category_id, box) in enumerate(truth, start=1)
    ]
    detections = [
        {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score / 100}
        for (image_id, category_id, box), score in zip(guesses, scores, strict=True)
    ]
    ground_truth = {
        "images": [{"id": i} for i in (1, 2, 3)],
        "categories": [{"id": c.dataset_id, "name": c.name} for c in CATEGORIES],
        "annotations": annotations,
    }
    return ground_truth, detections


def score(ground_truth, detections, categories=CATEGORIES):
    return evaluate_detections(ground_truth, detections, categories, backend="faster-coco-eval")


@settings(deadline=None, max_examples=40)
@given(data_sets())
def test_numbers_lie_between_zero_and_one_and_follow_their_order(data):
    metrics = score(*data).metrics
    assert all(value is None or 0 <= value <= 1 + 1e-12 for value in metrics.values())
    assert metrics["AP"] <= metrics["AP50"] + 1e-12
    assert metrics["AP75"] <= metrics["AP50"] + 1e-12
    assert metrics["AR1"] <= metrics["AR10"] <= metrics["AR100"]


@settings(deadline=None, max_examples=40)
@given(data_sets())
def test_only_the_order_of_scores_counts_not_the_order_of_lines(data):
    ground_truth, detections = data
    squared = [{**d, "score": d["score"] ** 2} for d in reversed(detections)]
    assert score(ground_truth, squared).metrics == score(ground_truth, detections).metrics


@settings(deadline=None, max_examples=40)
@given(data_sets())
def test_a_class_keeps_its_number_whatever_its_label_is(data):
    ground_truth, detections = data
    turned = CategoryMap(tuple(reversed(CATEGORIES.categories)))
    assert (
        score(ground_truth, detections, turned).classes
        == score(ground_truth, detections).classes[::-1]
    )


@settings(deadline=None, max_examples=40)
@given(data_sets())
def test_the_mean_over_classes_with_ground_truth_is_ap(data):
    result = score(*data)
    defined = [line.AP for line in result.classes if line.AP is not None]
    assert result.ap == pytest.approx(sum(defined) / len(defined))


@settings(deadline=None, max_examples=40)
@given(data_sets(), objects)
def test_a_weaker_wrong_detection_changes_no_precision(data, extra):
    """Precision at a recall is the best one from there on: what comes later only adds recall."""
    ground_truth, detections = data
    image_id, category_id, box = extra
    far_away = {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [box[0] + 1000, box[1], box[2], box[3]],
        "score": 0.001,
    }
    assert (
        score(ground_truth, [*detections, far_away]).metrics
        == score(ground_truth, detections).metrics
    )
