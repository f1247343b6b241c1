"""Milliseconds of the stages, with a clock that is set by hand."""

import pytest
import torch
from torch import nn

from dyhead_det.evaluation import speed as speed_module
from dyhead_det.evaluation.speed import SpeedMeter


class Slow(nn.Module):
    """A module that takes so many seconds of a clock."""

    def __init__(self, clock, seconds):
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def forward(self, x):
        self.clock[0] += self.seconds
        return x


class Network(nn.Module):
    """Resizes for 1 s, computes for 10 s, and postprocesses for 2 s."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock
        self.transform, self.head = Slow(clock, 1), Slow(clock, 10)

    def forward(self, x):
        x = self.head(self.transform(x))
        self.clock[0] += 2
        return x


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(speed_module.time, "perf_counter", lambda: now[0])
    return now


def measure(clock, detector, sizes, device="cpu"):
    def loader():
        for size in sizes:
            clock[0] += 5
            yield [torch.zeros(1)] * size

    meter = SpeedMeter(detector, torch.device(device))
    for images in meter.waits(loader()):
        with meter.batch(images):
            detector(images)
    return meter.speed()


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_stages_are_parted_and_the_first_batch_is_left_out(clock, is_wrapped):
    network = Network(clock)
    detector = nn.Sequential()
    detector.network, detector.forward = network, network.forward
    got = measure(clock, detector if is_wrapped else network, [1, 4, 4])
    assert (got.decode, got.preprocess, got.model, got.postprocess) == (1250, 250, 2500, 500)
    assert (got.total, got.num_images, got.batch_size) == (4500, 8, 4)
    assert got.text() == (
        "4500.0 ms (decode 1250.0, preprocess 250.0, model 2500.0, postprocess 500.0)"
    )
    assert not network.head._forward_hooks


def test_the_stages_of_several_looks_are_summed(clock):
    class Twice(nn.Module):
        """Asks two detectors, the first one twice, and merges for 7 s."""

        def __init__(self):
            super().__init__()
            self.detectors = [Network(clock), Network(clock)]

        def forward(self, x):
            for detector in (*self.detectors, self.detectors[0]):
                detector(x)
            clock[0] += 7

    got = measure(clock, Twice(), [1, 1])
    assert (got.preprocess, got.model, got.postprocess) == (3000, 30000, 6000 + 7000)


def test_one_batch_counts_and_none_has_no_speed(clock):
    assert measure(clock, Network(clock), [2]).num_images == 2
    assert measure(clock, Network(clock), []) is None


def test_an_unknown_detector_is_all_model(clock):
    got = measure(clock, Slow(clock, 3), [1, 1])
    assert (got.preprocess, got.model, got.postprocess) == (0, 3000, 0)


def test_a_gpu_is_bounded_by_events_and_nothing_waits_before_the_end(clock, monkeypatch):
    class Event:
        """Notes when it is passed; it may be read when it was waited for."""

        def __init__(self, enable_timing):
            assert enable_timing
            self.is_waited_for = False

        def record(self, _stream):
            self.at = clock[0]

        def synchronize(self):
            self.is_waited_for = True

        def elapsed_time(self, other):
            assert other.is_waited_for
            return 1000 * (other.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: None)
    got = measure(clock, Network(clock), [1, 1], device="cuda")
    assert (got.decode, got.preprocess, got.model, got.postprocess) == (5000, 1000, 10000, 2000)
