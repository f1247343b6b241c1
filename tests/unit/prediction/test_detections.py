"""What was found, as a sequence of objects."""

import json
import sys

import numpy as np
import pytest

from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.errors import ConfigError
from dyhead_det.prediction.detections import Detection, Detections

CATEGORIES = CategoryMap((Category("cat", 17), Category("dog", 18), Category("horse", 19)))


def make(number):
    """Return that many detections, of scores 0.9, 0.8, ..., each box one pixel further right."""
    starts = np.arange(number, dtype=np.float32)
    return Detections(
        boxes=np.stack([starts, starts, starts + 2, starts + 2], axis=1),
        scores=np.linspace(0.9, 1 - 0.1 * number, number, dtype=np.float32),
        labels=np.arange(number) % 2,
        categories=CATEGORIES,
    )


FOUND = make(4)


@pytest.mark.parametrize("index", [1, -3, np.int64(1)])
def test_one_object_by_its_position(index):
    assert FOUND[index] == Detection("dog", pytest.approx(0.8), (1, 1, 3, 3), 1)
    assert FOUND[index] == list(FOUND)[1]


def test_a_position_that_is_not_there_is_an_index_error():
    with pytest.raises(IndexError):
        FOUND[4]
    with pytest.raises(IndexError):
        make(0)[0]


@pytest.mark.parametrize(
    ("which", "positions"),
    [
        (slice(2), [0, 1]),
        (slice(None, None, -1), [3, 2, 1, 0]),
        (slice(9, None), []),
        (FOUND.scores > 0.75, [0, 1]),
        (FOUND.labels == 1, [1, 3]),
        ([2, 0], [2, 0]),
    ],
)
def test_several_objects_are_detections_again(which, positions):
    some = FOUND[which]
    assert isinstance(some, Detections)
    assert list(some) == [FOUND[position] for position in positions]
    assert some.boxes.shape == (len(positions), 4)
    assert some.names == tuple(FOUND.names[position] for position in positions)


def test_a_sequence_has_what_sequences_have():
    assert len(FOUND) == 4
    assert FOUND[0] in FOUND
    assert list(reversed(FOUND)) == list(FOUND)[::-1]
    assert not make(0)


def test_what_was_found_reads_well():
    assert repr(make(2)) == "<2 detections: cat 0.90, dog 0.80>"
    assert repr(make(7)) == (
        "<7 detections: cat 0.90, dog 0.80, cat 0.70, dog 0.60, cat 0.50, and 2 more>"
    )
    assert repr(make(0)) == "<0 detections>"


def test_a_choice_by_class_and_score():
    assert list(FOUND.filter(classes=["dog"])) == [FOUND[1], FOUND[3]]
    assert list(FOUND.filter(classes="dog", min_score=0.7)) == [FOUND[1]]
    assert list(FOUND.filter(min_score=0.75)) == list(FOUND[:2])
    assert len(FOUND.filter(classes=["horse"])) == 0
    assert list(FOUND.filter()) == list(FOUND)


def test_a_choice_that_cannot_be_is_an_error():
    with pytest.raises(ConfigError, match="unknown class 'dogs': did you mean"):
        FOUND.filter(classes=["dogs"])
    with pytest.raises(ValueError, match="min_score"):
        FOUND.filter(min_score=1.5)


def test_plain_values_can_be_written_as_json():
    assert json.loads(json.dumps(make(1).to_dict())) == {
        "boxes": [[0, 0, 2, 2]],
        "scores": [pytest.approx(0.9)],
        "labels": [0],
        "names": ["cat"],
    }


def test_coco_results_have_the_category_ids_of_the_data():
    assert make(2).to_coco(image_id=5) == [
        {"image_id": 5, "category_id": 17, "bbox": [0, 0, 2, 2], "score": pytest.approx(0.9)},
        {"image_id": 5, "category_id": 18, "bbox": [1, 1, 2, 2], "score": pytest.approx(0.8)},
    ]
    assert make(0).to_coco(image_id=5) == []


def test_without_supervision_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ModuleNotFoundError, match="pip install supervision"):
        FOUND.to_supervision()


@pytest.mark.parametrize("number", [0, 4])
def test_supervision_gets_boxes_scores_and_names(number):
    pytest.importorskip("supervision")
    theirs = make(number).to_supervision()
    assert theirs.xyxy.shape == (number, 4)
    assert theirs.confidence.tolist() == make(number).scores.tolist()
    assert theirs["class_name"].tolist() == list(make(number).names)
