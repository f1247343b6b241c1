"""Speed and share of waiting are those of training alone."""

import logging
from contextlib import closing

import pytest
import torch

from dyhead_det.reporting import progress as progress_module
from dyhead_det.reporting.progress import TrainProgress
from dyhead_det.reporting.stopwatch import LOADING, SAVING, STEPS, Stopwatch


@pytest.fixture
def clock():
    return [0.0]


@pytest.fixture
def stopwatch(clock):
    return Stopwatch(lambda: clock[0])


@pytest.fixture
def progress(stopwatch):
    return TrainProgress(
        first_step=0, num_steps=10, device=torch.device("cpu"), stopwatch=stopwatch
    )


def spend(stopwatch, clock, **seconds):
    for name, time in seconds.items():
        with stopwatch.part({"loading": LOADING, "steps": STEPS, "saving": SAVING}[name]):
            clock[0] += time


def test_speed_counts_steps_and_waiting_but_not_saving(progress, stopwatch, clock):
    spend(stopwatch, clock, loading=1, steps=3, saving=100)
    progress.advance(1, num_images=8, loss=1.0, lr=0.1)
    assert progress.images_per_second() == pytest.approx(2)
    assert progress.data_share() == pytest.approx(0.25)


def test_numbers_are_those_since_the_last_line(progress, stopwatch, clock):
    spend(stopwatch, clock, loading=9, steps=1)
    progress.advance(1, num_images=8, loss=1.0, lr=0.1)
    progress.log({"loss": 1.0})
    spend(stopwatch, clock, steps=4)
    progress.advance(2, num_images=4, loss=1.0, lr=0.1)
    assert progress.images_per_second() == pytest.approx(1)
    assert progress.data_share() == 0
    assert progress.num_images == 12


def test_without_a_terminal_a_line_is_logged(progress, caplog):
    progress.advance(5, num_images=8, loss=1.0, lr=0.1)
    with caplog.at_level(logging.INFO):
        progress.log({"loss": 1.25, "lr": 0.1})
    assert "step 5/10, loss 1.25, lr 0.1" in caplog.text


@pytest.mark.parametrize(("loading", "is_told"), [(3, True), (0.5, False)])
def test_the_bar_tells_speed_memory_and_slow_data(
    stopwatch, clock, monkeypatch, capsys, loading, is_told
):
    monkeypatch.setattr(progress_module.sys.stderr, "isatty", lambda: True)
    with closing(
        TrainProgress(first_step=0, num_steps=10, device=torch.device("cpu"), stopwatch=stopwatch)
    ) as progress:
        spend(stopwatch, clock, loading=loading, steps=3)
        progress.advance(1, num_images=6, loss=1.5, lr=0.1)
        progress._bar.refresh()
    shown = capsys.readouterr().err
    assert f"loss 1.500, lr 0.1, {6 / (3 + loading):.1f} images/s, " in shown
    assert " GiB" in shown
    assert ("50% waiting for data" in shown) == is_told


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 120, 160])
def test_the_bar_has_room_and_the_warning_is_whole_on_every_terminal(
    stopwatch, clock, monkeypatch, capsys, columns
):
    monkeypatch.setattr(progress_module.sys.stderr, "isatty", lambda: True)
    with closing(
        TrainProgress(
            first_step=44_000, num_steps=90_000, device=torch.device("cpu"), stopwatch=stopwatch
        )
    ) as progress:
        bar = progress._bar
        monkeypatch.setattr(bar, "dynamic_ncols", lambda _stream: (columns, 24))
        monkeypatch.setattr(bar, "_time", lambda: bar.start_t + 3725)
        spend(stopwatch, clock, loading=3, steps=3)
        progress.advance(44_999, num_images=370, loss=1.6, lr=0.00125)
        progress.advance(45_000, num_images=370, loss=1.5, lr=0.00125)
        bar.refresh()
        shown = bar.format_meter(**bar.format_dict)
    assert len(shown) <= columns
    assert shown in capsys.readouterr().err
    assert len(shown.split("|")[1]) >= 7
    assert "loss 1.500" in shown
    assert ("50% waiting" in shown) == (columns >= 60)
    assert (" GiB" in shown) == (columns >= 80)
    assert ("123.3 im" in shown) == (columns >= 100)
    assert ("lr 0.0013" in shown) == (columns >= 160)
