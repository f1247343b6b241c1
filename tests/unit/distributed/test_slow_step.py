"""A rank that hangs within a step is named, with what it does; a step in time says nothing."""

import threading

import pytest
import torch.distributed as dist

from dyhead_det.distributed import slow_step
from dyhead_det.distributed.slow_step import StepPosition, describe, slow_step_explained


def position(phase, num_phases, num_gradients, host="a"):
    return StepPosition(7, phase, num_phases, num_gradients, host)


FORWARD, EARLY, DONE = (
    position("the forward pass", 2, 0),
    position("the backward pass", 3, 5, "b"),
    position("the backward pass", 3, 60),
)


@pytest.mark.parametrize(
    ("positions", "words"),
    [
        (
            [DONE, EARLY, DONE],
            "rank 1 on b is in the backward pass with 5 gradients, and the others, in the backward "
            "pass with 60 gradients, wait for it; it is slow, or hangs",
        ),
        ([FORWARD, EARLY], "rank 0 on a is in the forward pass with 0 gradients, and the others"),
        ([EARLY, DONE, EARLY], "ranks 0, 2 on b is in the backward pass"),
        ([DONE, DONE], "all ranks are in the backward pass with 60 gradients; it is slow, or"),
        ([DONE, None], "rank 1 cannot even say where in it: stopped, or its machine lost"),
    ],
)
def test_the_rank_that_is_the_least_far_is_named(positions, words):
    assert describe(dict(enumerate(positions))).startswith(words)


@pytest.fixture
def two_ranks(monkeypatch):
    """Rank 0 of two; returns their store."""
    store = dist.HashStore()
    monkeypatch.setattr(slow_step, "get_world_size", lambda: 2)
    monkeypatch.setattr(slow_step, "get_rank", lambda: 0)
    monkeypatch.setattr(dist.distributed_c10d, "_get_default_store", lambda: store)
    return store


def test_what_an_earlier_step_has_left_counts_for_nothing(two_ranks, caplog, monkeypatch):
    said = threading.Event()
    monkeypatch.setattr(
        slow_step, "_warn", lambda positions, *_: (seen.append(positions), said.set())
    )
    seen = []
    two_ranks.set("slow step/1", '{"step": 6}')
    own = StepPosition()
    own.begin(7)
    with slow_step_explained(own, lambda: 3, seconds=0.01, grace=0.01):
        assert said.wait(timeout=20)
    [[first, second]] = seen
    assert (first.step, first.phase, first.num_gradients) == (7, "its preparation", 3)
    assert second is None


def test_in_time_nothing_is_said_and_no_thread_is_left(two_ranks, caplog):
    before = threading.active_count()
    with slow_step_explained(StepPosition(), lambda: 0):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    assert not caplog.messages
    assert not two_ranks.check(["slow step/0"])


def test_alone_nobody_waits(caplog):
    before = threading.active_count()
    with slow_step_explained(StepPosition(), lambda: 0):
        assert threading.active_count() == before
