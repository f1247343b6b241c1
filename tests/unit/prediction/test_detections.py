"""What was found, as a sequence of objects."""

import numpy as np
import pytest

from dyhead_det.prediction.detections import Detection, Detections


def make(number):
    """Return that many detections, of scores 0.9, 0.8, ..., each box one pixel further right."""
    starts = np.arange(number, dtype=np.float32)
    return Detections(
        boxes=np.stack([starts, starts, starts + 2, starts + 2], axis=1),
        scores=np.linspace(0.9, 1 - 0.1 * number, number, dtype=np.float32),
        labels=np.arange(number) % 2,
        names=tuple(("cat", "dog")[i % 2] for i in range(number)),
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
