"""When a run stops early."""

import pytest

from dyhead_det.training.early_stopping import EarlyStopping


def note_all(patience, scores):
    """Return after which evaluations the run would end."""
    ended = []
    for number, ap in enumerate(scores, start=1):
        patience.note(ap)
        if patience.is_over:
            ended.append(number)
    return ended


@pytest.mark.parametrize(
    ("scores", "ended"),
    [
        ([0.1, 0.2, 0.2, 0.1], [4]),
        ([0.1, 0.2, 0.2, 0.3, 0.3], []),
        ([0.0, 0.0, 0.0], [3]),
        ([0.3, 0.2, 0.1, 0.4], [3]),
    ],
)
def test_evaluations_without_a_rise_are_counted_in_a_row(scores, ended):
    assert note_all(EarlyStopping(2, 0.0), scores)[:1] == ended


def test_a_rise_counts_only_from_the_last_that_did():
    """Steps of 0.04 add up: 0.58 is more than 0.05 above 0.5, and the reference from then on."""
    patience = EarlyStopping(2, 0.05)
    assert note_all(patience, [0.5, 0.54, 0.58]) == []
    assert patience.reference == 0.58
    assert note_all(patience, [0.6, 0.62]) == [2]
