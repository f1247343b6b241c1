"""Batches in step with those of other ranks, until a signal comes to one of them."""

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from dyhead_det.distributed import stopping
from dyhead_det.distributed.stopping import StopRequested, StopSignals, graceful_shutdown

NO_SIGNAL, LEFT, ENDED = 0, True, False


@pytest.fixture
def other_process(monkeypatch):
    """Let another process give numbers with every batch: its signal, is one left, its images."""

    def gives(*numbers):
        of_other = iter(numbers)
        monkeypatch.setattr(
            stopping, "all_gather_numbers", lambda *own: [list(own), list(next(of_other))]
        )

    return gives


def batches(*sizes):
    return [([None] * size, [None] * size) for size in sizes]


def test_a_process_whose_share_has_ended_waits_for_the_others(other_process):
    other_process((NO_SIGNAL, LEFT, 2), (NO_SIGNAL, LEFT, 2), (NO_SIGNAL, ENDED, 0))
    watched = StopSignals().watch(batches(1))
    seen = [(len(images), watched.num_images) for images, _ in watched]
    assert seen == [(1, 3)]


def test_a_step_is_left_out_only_if_no_process_has_an_image(other_process):
    other_process((NO_SIGNAL, LEFT, 0), (NO_SIGNAL, LEFT, 1), (NO_SIGNAL, ENDED, 0))
    watched = StopSignals().watch(batches(0, 0))
    seen = [(len(images), watched.num_images) for images, _ in watched]
    assert seen == [(0, 1)]


def test_a_signal_to_one_process_stops_all_before_the_same_batch(other_process):
    other_process((NO_SIGNAL, LEFT, 1), (signal.SIGTERM, LEFT, 1))
    watched = iter(StopSignals().watch(batches(1, 1, 1)))
    next(watched)
    with pytest.raises(StopRequested, match="SIGTERM"):
        next(watched)


def test_a_signal_waits_for_the_next_batch_and_handlers_come_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with graceful_shutdown() as stop:
        batch_numbers = iter(stop.watch(batches(1, 1)))
        next(batch_numbers)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(StopRequested, match="SIGTERM"):
            next(batch_numbers)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_in_another_thread_signals_are_left_alone():
    before = signal.getsignal(signal.SIGINT)

    def handler_inside():
        with graceful_shutdown() as stop:
            assert len(list(stop.watch(batches(1, 2)))) == 2
            return signal.getsignal(signal.SIGINT)

    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(handler_inside).result() == before


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_a_lost_terminal_that_is_ignored_stays_so_as_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with graceful_shutdown() as stop:
            signal.raise_signal(signal.SIGHUP)
            stop.check()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
