"""The best anchor of a box is that of all anchors of the detector; suggestions reach more."""

import numpy as np
import pytest
import torch
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from dyhead_det.inspection.anchor_fit import (
    REACHED_IOU,
    AnchorSuggestion,
    anchor_levels,
    best_ious,
    suggest_anchors,
    with_anchors,
)
from dyhead_det.models.anchors import build_anchor_generator
from dyhead_det.models.atss.detector import SquareAnchors

from conftest import make_config

HEIGHT, WIDTH = 128, 192  # multiples of every stride


def model(**detector):
    return make_config(model={"detector": detector}).model


def boxes_inside(number=400, *, longest=100.0):
    chance = np.random.default_rng(0)
    sides = np.exp(chance.uniform(np.log(3), np.log(longest), (number, 2)))
    sides = np.minimum(sides, (WIDTH, HEIGHT))
    corners = chance.uniform(0, 1, (number, 2)) * ((WIDTH, HEIGHT) - sides)
    return np.concatenate([corners, corners + sides], axis=1), np.tile((WIDTH, HEIGHT), (number, 1))


@pytest.mark.parametrize(
    "detector",
    [
        {"name": "fasterrcnn", "anchor_sizes": [[8], [16], [32], [64], [128]]},
        {"name": "retinanet"},
        {"name": "atss"},
    ],
    ids=lambda detector: detector["name"],
)
def test_the_best_iou_is_that_with_all_anchors_of_the_detector(detector):
    config = model(**detector)
    levels = anchor_levels(config)
    maps = [
        torch.zeros(1, 1, -(-HEIGHT // n), -(-WIDTH // n)) for n in (each.stride for each in levels)
    ]
    images = ImageList(torch.zeros(1, 3, HEIGHT, WIDTH), [(HEIGHT, WIDTH)])
    if detector["name"] == "atss":
        generator = SquareAnchors([each.stride for each in levels], anchor_offset=0.5)
    else:
        generator = build_anchor_generator(
            config.detector.anchor_sizes, config.detector.anchor_ratios, compat="none"
        )
        # A level coarser than the image has one cell, whose stride torchvision takes for the image.
        levels = levels[:4]
        maps = maps[:4]
        generator.sizes, generator.aspect_ratios = generator.sizes[:4], generator.aspect_ratios[:4]
        generator.cell_anchors = generator.cell_anchors[:4]
    [anchors] = generator(images, maps)
    boxes, sizes_wh = boxes_inside()
    expected = box_iou(torch.from_numpy(boxes), anchors.double()).max(dim=1).values.numpy()
    np.testing.assert_allclose(best_ious(boxes, sizes_wh, levels), expected, atol=1e-6)


def test_points_have_no_anchors_and_atss_gets_no_suggestion():
    boxes, sizes_wh = boxes_inside(20)
    assert anchor_levels(model(name="fcos")) == ()
    for name in ("fcos", "atss"):
        assert suggest_anchors(boxes, sizes_wh, model(name=name)) is None


@pytest.mark.parametrize("name", ["fasterrcnn", "retinanet"])
def test_a_suggestion_has_the_form_of_the_configuration_and_reaches_more(name):
    config = model(name=name)
    boxes, sizes_wh = boxes_inside(longest=30.0)
    suggestion = suggest_anchors(boxes, sizes_wh, config)
    fitted = with_anchors(config, suggestion)
    before, after = (
        (best_ious(boxes, sizes_wh, anchor_levels(each)) >= REACHED_IOU).mean()
        for each in (config, fitted)
    )
    assert after > before + 0.1
    # The configuration takes them as they are.
    assert model(name=name, **suggestion._asdict()).detector == fitted.detector


def test_boxes_of_one_shape_are_met():
    boxes = np.array([[40.0, 40, 64, 88]] * 30)
    suggestion = suggest_anchors(boxes, np.tile((WIDTH, HEIGHT), (30, 1)), model(name="fasterrcnn"))
    config = with_anchors(model(name="fasterrcnn"), suggestion)
    assert best_ious(boxes[:1], np.array([[WIDTH, HEIGHT]]), anchor_levels(config)) > 0.8


def test_overrides_are_whole_pixels_and_short_ratios():
    suggestion = AnchorSuggestion(((8.0,), (16.0,)), (0.5, 1.25))
    assert suggestion.overrides() == [
        "model.detector.anchor_sizes=[[8], [16]]",
        "model.detector.anchor_ratios=[0.5, 1.25]",
    ]
