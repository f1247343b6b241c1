"""Hits, misses, confusions and false detections at a bound of the score."""

import numpy as np

from dyhead_det.evaluation.analysis.outcomes import (
    assign_outcomes,
    confusion_matrix,
    image_counts,
    image_outcomes,
)
from dyhead_det.evaluation.matching import match

from made_up_data import made_up


def entry(image_id, category, box, **more):
    return {"image_id": image_id, "category_id": category, "bbox": box, **more}


TRUTH = {
    "images": [{"id": 1}, {"id": 2}],
    "categories": [{"id": 1}, {"id": 2}],
    "annotations": [
        entry(1, 1, [0, 0, 10, 10]),
        entry(1, 2, [50, 0, 10, 10]),
        entry(2, 2, [0, 0, 10, 10]),
        entry(2, 2, [90, 90, 99, 99], iscrowd=1),
    ],
}
DETECTIONS = [
    entry(1, 1, [0, 0, 10, 10], score=0.9),
    entry(1, 1, [50, 0, 10, 9], score=0.8),  # in place of the 2
    entry(1, 1, [50, 0, 10, 10], score=0.7),  # nearer, but the better one was first
    entry(2, 1, [30, 30, 10, 10], score=0.6),  # nothing there
    entry(2, 1, [95, 95, 10, 10], score=0.6),  # a crowd, but of the other class
    entry(2, 2, [95, 95, 10, 10], score=0.6),  # in the crowd
    entry(2, 2, [0, 0, 10, 10], score=0.1),  # too weak
]


def test_confusions_are_counted_with_background():
    matches = match(TRUTH, DETECTIONS)
    got = confusion_matrix(matches, assign_outcomes(matches, 0.5))
    # Rows: annotated as 1, as 2, not at all; columns: detected as 1, as 2, not at all.
    assert got.tolist() == [[1, 0, 0], [1, 0, 1], [3, 0, 0]]
    got = confusion_matrix(matches, assign_outcomes(matches, 0.05))
    assert got.tolist() == [[1, 0, 0], [1, 1, 0], [3, 0, 0]]


def test_images_are_counted_and_the_worst_come_first():
    matches = match(TRUTH, DETECTIONS)
    got = image_counts(matches, assign_outcomes(matches, 0.5))
    assert got.num_found.tolist() == [1, 0]
    assert got.num_missed.tolist() == [1, 1]
    assert got.num_false.tolist() == [2, 2]
    assert got.worst(5).tolist() == [0, 1]
    assert got.worst(1).tolist() == [0]


def test_an_image_shows_its_objects_and_detections_best_first():
    matches = match(TRUTH, DETECTIONS)
    got = image_outcomes(matches, assign_outcomes(matches, 0.5), 0)
    assert got.image_id == 1
    assert [(each.label, each.is_right) for each in got.objects] == [(0, True), (1, False)]
    assert [(each.score, each.is_right) for each in got.detections] == [
        (0.9, True),
        (0.8, False),
        (0.7, False),
    ]
    assert got.detections[1].box == (50, 0, 60, 9)


def test_rows_and_columns_add_up():
    truth, detections = made_up(2, num_images=30, crowds=0)
    matches = match(truth, detections)
    outcomes = assign_outcomes(matches, 0.3)
    matrix = confusion_matrix(matches, outcomes)
    np.testing.assert_array_equal(matrix[:-1].sum(axis=1), matches.objects_of_class())
    shown = np.bincount(matches.detections.label[matches.score >= 0.3], minlength=3)
    np.testing.assert_array_equal(matrix[:, :-1].sum(axis=0), shown)
    hits = matches.is_true[0] & (matches.score >= 0.3)
    assert np.trace(matrix) == hits.sum()
