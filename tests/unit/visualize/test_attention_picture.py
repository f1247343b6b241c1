"""The picture of an explained detector says what it shows."""

import io

import numpy as np
import pytest
import torch
from matplotlib.text import Text

from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.explain.explain import explain
from dyhead_det.models.detectors import build_detector
from dyhead_det.prediction.predictor import Predictor
from dyhead_det.visualize.attention_picture import _units, draw_attention

from conftest import SMALL_DETECTORS, make_config


def picture_of(dyhead):
    config = make_config(model={"detector": SMALL_DETECTORS["fcos"], "dyhead": dyhead})
    built = build_detector(config.model, num_classes=1, load_backbone_weights=False)
    predictor = Predictor(
        built, CategoryMap((Category("$\\frac$\n", 1),)), device=torch.device("cpu")
    )
    return draw_attention(explain(predictor, torch.rand(3, 40, 64), min_score=0))


def words(figure):
    return " ".join(text.get_text() for text in figure.findobj(Text))


def test_all_parts_have_titles_legends_and_units():
    figure = picture_of({"num_blocks": 2})
    figure.savefig(io.BytesIO(), format="png")
    said = words(figure)
    for word in (
        "What DyHead looked at", "A  Feature maps", "B  Spatial attention", "C  Scale attention",
        "D  Task attention", "after block 2", "what the heads get", "image pixels", "(itself)",
        "weight (mask) 0.5", "factor, 0 to 1", "input x", "channel, 0 to 15", "slope 1",
    ):  # fmt: skip
        assert word in said


def test_points_outside_the_picture_are_counted():
    points = np.array([[[1, 1], [9, 5]], [[np.nan, np.nan], [5, -3]]], dtype=np.float32)
    assert _units(points, (0, 10, 10, 0)) == "image pixels; 1 of 3 points farther away"
    assert _units(points, (0, 10, 10, -5)) == "image pixels"


@pytest.mark.parametrize(
    ("dyhead", "words_said"),
    [
        ({"scheme": "stacked"}, ["same points", "all levels are resized to P5"]),
        ({"attention": ["scale"]}, ["no deformable convolutions", "no task attention"]),
        ({"attention": ["task"], "scheme": "stacked"}, ["no scale attention"]),
    ],
)
def test_other_forms_of_dyhead_are_drawn_too(dyhead, words_said):
    said = words(picture_of({"num_blocks": 1, **dyhead}))
    assert all(word in said for word in words_said)
