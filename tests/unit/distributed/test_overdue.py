"""Who keeps the others waiting is named, and nobody where it goes on in time."""

import logging
import threading

import pytest

from dyhead_det.distributed import overdue
from dyhead_det.distributed.overdue import overdue_ranks_named


@pytest.fixture
def logged(caplog):
    """Is set when something is logged."""
    event = threading.Event()

    class Notice(logging.Handler):
        def emit(self, record):
            event.set()

    handler = Notice()
    logging.getLogger("dyhead_det").addHandler(handler)
    yield event
    logging.getLogger("dyhead_det").removeHandler(handler)


@pytest.mark.parametrize(
    ("own_rank", "other", "words"),
    [
        (0, 3, "rank 0 waits for rank 3 since"),
        (1, 0, "rank 1 waits for rank 0, or for one that it waits for since"),
    ],
)
def test_the_rank_that_is_waited_for_is_named(monkeypatch, caplog, logged, own_rank, other, words):
    monkeypatch.setattr(overdue, "get_rank", lambda: own_rank)
    with overdue_ranks_named(seconds=0.05) as waiting:
        waiting.rank = other
        assert logged.wait(timeout=20)
    assert words in caplog.text


def test_in_time_nothing_is_said_and_no_thread_is_left(caplog):
    before = threading.active_count()
    with overdue_ranks_named() as waiting:
        waiting.rank = 1
    assert threading.active_count() == before
    assert not caplog.messages


def test_only_two_ranks_watch(monkeypatch):
    monkeypatch.setattr(overdue, "get_rank", lambda: 2)
    before = threading.active_count()
    with overdue_ranks_named():
        assert threading.active_count() == before
