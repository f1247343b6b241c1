"""Which detection or pixel is looked at, and what is said where there is none."""

import numpy as np
import pytest

from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.errors import ConfigError
from dyhead_det.explain.choose import choose, level_named
from dyhead_det.prediction.detections import Detections

CATEGORIES = CategoryMap((Category("cat", 1), Category("dog", 2), Category("horse", 3)))
FOUND = Detections(
    boxes=np.array([[0, 0, 10, 20], [10, 10, 30, 30], [5, 5, 7, 7]], dtype=np.float32),
    scores=np.array([0.9, 0.8, 0.7], dtype=np.float32),
    labels=np.array([0, 1, 1]),
    categories=CATEGORIES,
)
NOTHING = {"box": None, "at": None, "class_name": None}


def chosen(detections=FOUND, **given):
    return choose(detections, (40, 60), **{**NOTHING, **given})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ((5, 10), 0)),
        ({"box": 3}, ((6, 6), 2)),
        ({"class_name": "dog"}, ((20, 20), 1)),
        ({"at": (59.5, 0)}, ((59.5, 0), None)),
    ],
)
def test_a_detection_by_number_or_class_or_a_pixel(given, expected):
    assert chosen(**given) == expected


def test_where_nothing_is_found_it_is_the_middle_of_the_image(caplog):
    assert chosen(FOUND[:0]) == ((30, 20), None)
    assert "no object was found" in caplog.text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"box": 4}, "no number 4, 3 objects were found"),
        ({"class_name": "horse"}, "no 'horse' was found"),
        ({"class_name": "hors"}, "did you mean 'horse'"),
        ({"at": (60, 0)}, "outside the image, which has 60 x 40 pixels"),
        ({"at": (float("nan"), 0)}, "outside the image"),
    ],
)
def test_what_is_not_there_is_one_line(given, message):
    with pytest.raises(ConfigError, match=message):
        chosen(**given)


def test_two_choices_are_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="one of"):
        chosen(box=1, class_name="dog")


def test_a_level_by_its_name():
    assert level_named("p4", ("p3", "p4")) == 1
    with pytest.raises(ConfigError, match="one of p3, p4"):
        level_named("p9", ("p3", "p4"))
