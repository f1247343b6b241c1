"""Seconds are counted once, for the innermost part."""

import pytest

from dyhead_det.reporting.stopwatch import OTHER, Stopwatch


class Clock:
    """A clock that goes only when it is told to."""

    def __init__(self):
        self.time = 100.0

    def __call__(self):
        return self.time

    def passes(self, seconds):
        self.time += seconds


@pytest.fixture
def clock():
    return Clock()


def test_a_part_inside_another_is_counted_once(clock):
    watch = Stopwatch(clock)
    clock.passes(1)
    with watch.part("evaluation"):
        clock.passes(2)
        with watch.part("saving"):
            clock.passes(8)
        clock.passes(4)
    clock.passes(16)
    assert watch.seconds() == {OTHER: 17, "saving": 8, "evaluation": 6}
    assert list(watch.seconds()) == [OTHER, "saving", "evaluation"]


def test_the_running_part_is_counted_up_to_now(clock):
    watch = Stopwatch(clock)
    with watch.part("saving"):
        clock.passes(3)
        assert watch.seconds()["saving"] == 3


def test_a_part_ends_with_an_error_too(clock):
    watch = Stopwatch(clock)

    def fail():
        with watch.part("saving"):
            clock.passes(3)
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    clock.passes(5)
    assert watch.seconds() == {OTHER: 5, "saving": 3}


def test_waiting_for_batches_is_parted_from_working_on_them(clock):
    def batches():
        for number in range(3):
            clock.passes(10)
            yield number
        clock.passes(100)

    watch, seen = Stopwatch(clock), []
    for number in watch.waits("loading", batches()):
        seen.append(number)
        with watch.part("steps"):
            clock.passes(1)
    assert seen == [0, 1, 2]
    assert watch.seconds() == {"loading": 130, "steps": 3, OTHER: 0}
