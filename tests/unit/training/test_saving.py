"""When a run is saved, and which checkpoints stay."""

import itertools

import pytest
import torch

from dyhead_det.checkpoints.checkpoint import load_checkpoint
from dyhead_det.training import saving as saving_module
from dyhead_det.training.run import build_run
from dyhead_det.training.saving import is_save_due, keep_epoch, save_last

from conftest import make_config


@pytest.fixture
def new_run(tiny_dataset, tmp_path):
    """Build a run of two steps an epoch that has not been saved yet."""

    def build(**train):
        config = make_config(tiny_dataset, train={"steps": 9, "save_every_epochs": None, **train})
        (tmp_path / "run").mkdir()
        return build_run(config, tmp_path / "run", torch.device("cpu"), is_new=True)

    return build


@pytest.mark.parametrize(
    ("train", "due"),
    [
        ({}, []),
        ({"save_every_epochs": 1}, [2, 4, 6, 8]),
        ({"save_every_epochs": 2}, [4, 8]),
        ({"save_every_steps": 3}, [3, 6, 9]),
        ({"save_every_steps": 3, "save_every_epochs": 2}, [3, 4, 6, 8, 9]),
    ],
)
def test_runs_are_saved_every_so_many_steps_or_epochs(new_run, train, due):
    run, found = new_run(**train), []
    for run.progress.step in range(1, 10):
        found += [run.progress.step] * is_save_due(run)
    assert found == due


def test_runs_are_saved_every_so_many_minutes_since_the_last_time(new_run, monkeypatch):
    run = new_run(save_every_minutes=2.0)
    clock = itertools.count(run.saved_at, 50.0)  # seconds
    monkeypatch.setattr(saving_module.time, "monotonic", lambda: next(clock))
    assert [is_save_due(run) for _ in range(4)] == [False, False, False, True]
    run.progress.step = 1
    save_last(run)
    assert [is_save_due(run) for _ in range(3)] == [False, False, True]


def test_the_checkpoints_of_every_kth_epoch_stay(new_run):
    run = new_run(keep_every_epochs=2)
    for run.progress.step in range(10):
        keep_epoch(run)
    kept = {path.name: load_checkpoint(path).step for path in run.parts.out.glob("epoch_*.pt")}
    assert kept == {"epoch_002.pt": 4, "epoch_004.pt": 8}


def test_a_kept_checkpoint_outlives_its_second_name(new_run):
    run = new_run(keep_every_epochs=1)
    for run.progress.step in (2, 3, 5):
        save_last(run)
        keep_epoch(run)
    assert load_checkpoint(run.parts.out / "epoch_001.pt").step == 2
    assert load_checkpoint(run.parts.out / "previous.pt").step == 3
    assert load_checkpoint(run.parts.out / "last.pt").step == 5


def test_the_same_state_is_not_written_twice(new_run):
    run = new_run()
    run.progress.step = 1
    save_last(run)
    written = run.parts.last_path.stat().st_ino
    save_last(run)
    assert run.parts.last_path.stat().st_ino == written
