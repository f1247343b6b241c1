"""What ranks must have in common: which names differ, and on which ranks."""

import pytest

from dyhead_det.distributed import agreement
from dyhead_det.distributed.agreement import find_differences, require_agreement
from dyhead_det.errors import RanksDifferError


@pytest.mark.parametrize(
    ("values_by_rank", "expected"),
    [
        ([{"seed": 0}], []),
        ([{"seed": 0, "lr": 0.1}] * 3, []),
        ([{"seed": 0}, {"seed": 1}], ["seed: 0 on rank 0, 1 on rank 1"]),
        ([{"lr": 1}, {"lr": 1.0}], ["lr: 1 on rank 0, 1.0 on rank 1"]),
        (
            [{"a": 1, "b": 2}, {"a": 1}, {"a": 1, "b": 2}],
            ["b: 2 on ranks 0, 2, missing on rank 1"],
        ),
        (
            [{"a": [1, 2]}, {"a": [1, 2]}, {"a": [2, 1]}, {"a": [1, 2]}, {"a": [1, 2]}],
            ["a: [1, 2] on 4 ranks, the first 0, [2, 1] on rank 2"],
        ),
    ],
)
def test_differences_name_values_and_ranks(values_by_rank, expected):
    assert find_differences(values_by_rank) == expected


def test_long_values_are_cut():
    (text,) = find_differences([{"a": "x" * 1000}, {"a": "y"}])
    assert len(text) < 100


def test_alone_there_is_nothing_to_differ_from():
    require_agreement({"seed": 0})


def test_every_rank_raises_the_same_one_line(monkeypatch):
    others = dict.fromkeys("abcde", 1)
    monkeypatch.setattr(agreement, "all_gather_objects", lambda own: [dict.fromkeys(own, 0), own])
    with pytest.raises(RanksDifferError) as caught:
        require_agreement(others)
    text = str(caught.value)
    assert text.startswith(
        "the processes of this run differ: a: 0 on rank 0, 1 on rank 1; b: 0 on rank 0"
    )
    assert "; and 2 more; give all the same configuration" in text
    assert caught.value.exit_code == 2
