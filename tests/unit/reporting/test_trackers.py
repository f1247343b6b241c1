"""Trackers get each step once, and are named where they are missing."""

import json
import sys

import pytest

from dyhead_det.errors import ConfigError
from dyhead_det.reporting.trackers import (
    MLflowRun,
    SentSteps,
    ServiceLog,
    WandbRun,
    open_tracker,
    require_trackers,
)


def row(step, **values):
    return {"step": step, "epoch": step / 4, **values}


class Notebook:
    """A service that remembers what it was sent."""

    id = "run-7"

    def __init__(self):
        self.sent = []

    def send(self, values, *, step, epoch):
        self.sent.append((step, values))

    def close(self, *, is_finished):
        self.sent.append(is_finished)


@pytest.mark.parametrize(
    ("name", "module"),
    [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb"), ("mlflow", "mlflow")],
)
def test_a_missing_tracker_is_told_with_what_to_do(name, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    message = rf"train.trackers: {name} .*pip install 'dyhead-det\[{name}\]'`, or leave it out"
    with pytest.raises(ConfigError, match=message):
        require_trackers([name])


def test_a_resumed_run_sends_no_step_twice_and_leaves_none_out(tmp_path):
    path, service = tmp_path / "x" / "resume.json", Notebook()
    killed = ServiceLog(service, SentSteps(path), [])
    killed.add(row(2, loss=2.0))
    killed.add(row(4, loss=4.0))
    killed.add(row(4, AP=0.5, APl=None))
    # The checkpoint was written at 2; the run is not closed, its process was killed.
    state = SentSteps.read(path)
    assert state.run_id == "run-7"
    resumed = ServiceLog(service, state, [row(2, loss=2.0)])
    for again in (row(4, loss=4.0), row(4, AP=0.5), row(6, loss=6.0)):
        resumed.add(again)
    resumed.close(is_finished=True)
    assert service.sent == [
        (2, {"loss": 2.0}),
        (4, {"loss": 4.0}),
        (4, {"AP": 0.5}),
        (6, {"loss": 6.0}),
        True,
    ]


def test_a_tracker_that_is_switched_on_later_gets_the_rows_so_far(tmp_path):
    service = Notebook()
    ServiceLog(service, SentSteps(tmp_path / "resume.json"), [row(2, loss=2.0), row(4, loss=4.0)])
    assert [step for step, _ in service.sent] == [2, 4]


def test_a_new_run_in_an_old_folder_is_a_new_run_of_the_tracker(tmp_path, monkeypatch):
    asked = []

    class Service(Notebook):
        def __init__(self, out, config, *, run_id):
            super().__init__()
            asked.append(run_id)

    monkeypatch.setattr("dyhead_det.reporting.trackers.WandbRun", Service)
    open_tracker("wandb", tmp_path, [], {})
    open_tracker("wandb", tmp_path, [row(2, loss=1.0)], {})
    open_tracker("wandb", tmp_path, [], {})
    assert asked == [None, "run-7", None]
    assert json.loads((tmp_path / "wandb" / "resume.json").read_text())["last"] == {}


@pytest.mark.slow
def test_wandb_takes_a_run_without_a_network_and_goes_on_with_it(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    first = WandbRun(tmp_path, {"seed": 1}, run_id=None)
    first.send({"loss": 1.0, "AP/cat (big)": 0.5}, step=2, epoch=0.5)
    first.close(is_finished=False)
    again = WandbRun(tmp_path, {"seed": 1}, run_id=first.id)
    assert again.id == first.id
    again.send({"loss": 0.5}, step=4, epoch=1.0)
    again.close(is_finished=True)
    assert len(list((tmp_path / "wandb").glob(f"offline-run-*-{first.id}/*.wandb"))) >= 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_mlflow_keeps_a_run_in_a_file_and_goes_on_with_it(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    pytest.importorskip("alembic")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    first = MLflowRun(tmp_path, {"seed": 1, "model": {"channels": 16}}, run_id=None)
    first.send({"loss": 1.0, "AP/cat:(big)": 0.5}, step=2, epoch=0.5)
    first.close(is_finished=False)
    again = MLflowRun(tmp_path, {"seed": 1}, run_id=first.id)
    again.send({"loss": 0.5}, step=4, epoch=1.0)
    again.close(is_finished=True)
    run = again._client.get_run(first.id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"seed": "1", "model.channels": "16"}
    assert run.data.metrics == {"loss": 0.5, "AP/cat__big_": 0.5, "epoch": 1.0}
    history = again._client.get_metric_history(first.id, "loss")
    assert [(point.step, point.value) for point in history] == [(2, 1.0), (4, 0.5)]
