"""Relative boxes and corners are recognised by what all boxes share; real files pass."""

import numpy as np
import pytest

from dyhead_det.data.coco.box_frames import require_xywh_pixels
from dyhead_det.data.coco.problems import AnnotationProblems

WIDTH, HEIGHT = 640, 480


def boxes_xywh(count, seed=0):
    """Objects of 5 to 60 percent of the image, anywhere inside it."""
    random = np.random.default_rng(seed)
    sizes = random.uniform(0.05, 0.6, (count, 2)) * (WIDTH, HEIGHT)
    corners = random.uniform(0, 1, (count, 2)) * ((WIDTH, HEIGHT) - sizes)
    return np.concatenate([corners, sizes], axis=1)


def as_xyxy(boxes):
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def problems_of(boxes, areas=None, size=(WIDTH, HEIGHT)):
    problems = AnnotationProblems("file.json")
    count = len(boxes)
    areas = np.full(count, np.nan) if areas is None else areas
    require_xywh_pixels(boxes, np.tile(size, (count, 1)), areas, np.arange(count), problems)
    return problems


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("count", [1, 10, 300])
def test_sound_boxes_pass_without_a_word(count, seed):
    boxes = boxes_xywh(count, seed)
    for areas in (None, boxes[:, 2:].prod(axis=1)):
        problems = problems_of(boxes, areas)
        assert not problems.refused
        assert not problems.repaired


@pytest.mark.parametrize("share_above_one", [0, 0.1, 0.4])
def test_relative_boxes_are_refused_though_some_numbers_are_above_one(share_above_one):
    boxes = boxes_xywh(50) / (WIDTH, HEIGHT, WIDTH, HEIGHT)
    boxes[: int(50 * share_above_one), 2] = 1.7
    (kind,) = problems_of(boxes).refused
    assert "bbox must be pixels" in kind


def test_some_relative_boxes_among_pixels_are_a_warning():
    boxes = boxes_xywh(50)
    boxes[:10] /= (WIDTH, HEIGHT, WIDTH, HEIGHT)
    problems = problems_of(boxes)
    assert not problems.refused
    assert [len(ids) for ids in problems.repaired.values()] == [10]


def test_boxes_of_a_pixel_in_tiny_images_are_boxes():
    problems = problems_of(np.ones((20, 4)), size=(8, 8))
    assert not problems.refused
    assert not problems.repaired


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("has_areas", [True, False])
def test_corners_are_refused(has_areas, seed):
    boxes = boxes_xywh(40, seed)
    areas = boxes[:, 2:].prod(axis=1) if has_areas else None
    (kind,) = problems_of(as_xyxy(boxes), areas).refused
    assert "look like two corners" in kind
    assert "100% are corners inside their image" in kind


def test_a_few_corners_are_refused_where_their_areas_prove_it_and_else_a_warning():
    boxes = boxes_xywh(4, seed=1)
    assert problems_of(as_xyxy(boxes), boxes[:, 2:].prod(axis=1)).refused
    problems = problems_of(as_xyxy(boxes))
    assert not problems.refused
    assert "look like two corners" in next(iter(problems.repaired))


@pytest.mark.parametrize("overhang", [2, 10, 60])
def test_sizes_that_merely_reach_out_pass(overhang):
    """Annotators draw over the edge: every box that touches it, and all of them large."""
    boxes = boxes_xywh(200)
    boxes[:, 2:] = np.minimum(boxes[:, 2:] * 2, (WIDTH, HEIGHT) - boxes[:, :2] + overhang)
    problems = problems_of(boxes)
    assert not problems.refused
    assert not problems.repaired


def test_large_boxes_that_reach_out_pass_where_their_areas_are_those_of_sizes():
    boxes = np.tile([5.0, 5.0, WIDTH - 2.0, HEIGHT - 2.0], (30, 1))
    assert not problems_of(boxes, boxes[:, 2:].prod(axis=1)).refused


def test_nothing_that_can_be_judged_is_no_problem():
    unusable = np.array([[np.nan] * 4, [np.inf, 1, 2, 3], [0, 0, 0, 0], [1e308] * 4])
    problems = problems_of(unusable)
    assert not problems.refused
    assert not problems.repaired
