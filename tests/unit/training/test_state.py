"""What a checkpoint keeps of a run: typed on its way in and out, and nothing copied or missing."""

import pytest
import torch

from dyhead_det.errors import CheckpointError
from dyhead_det.training.early_stopping import EarlyStopping
from dyhead_det.training.state import (
    DataFingerprint,
    EMAState,
    LossSums,
    Progress,
    TrainState,
)


@pytest.fixture
def state():
    return TrainState(
        progress=Progress(
            step=7,
            evaluated_step=6,
            metrics={"AP": 0.25, "APs": None},
            best={"AP": 0.5, "step": 3},
            losses=LossSums({"loss_classifier": 1.5}, num_steps=2),
            early_stopping=EarlyStopping(3, 0.01, reference=0.5, num_without_rise=2),
        ),
        optimizer={"state": {0: {"step": torch.tensor(7.0)}}, "param_groups": []},
        scaler={},
        ema=EMAState(num_averaged=7, trained_model={"weight": torch.ones(2)}),
        data=DataFingerprint(4, "abc"),
        world_size=2,
    )


def test_a_state_comes_back_from_plain_values_with_the_same_tensors(state):
    plain = state.to_plain()
    assert plain["ema"]["trained_model"] is state.ema.trained_model
    again = TrainState.from_plain(plain, "last.pt")
    assert again.progress == state.progress
    assert again.data == state.data
    assert again.world_size == 2
    assert again.ema.trained_model["weight"] is state.ema.trained_model["weight"]
    assert again.optimizer["state"][0]["step"] is state.optimizer["state"][0]["step"]


def test_without_average_and_early_stopping_there_is_none(state):
    plain = {**state.to_plain(), "ema": None}
    plain["progress"]["early_stopping"] = None
    again = TrainState.from_plain(plain, "last.pt")
    assert again.ema is None
    assert again.progress.early_stopping is None


def section_with(plain, path):
    """Return the section of plain values that holds the last key of a path."""
    for key in path[:-1]:
        plain = plain[key]
    return plain


FIELDS = [("progress", "step"), ("progress", "best"), ("optimizer",), ("data", "num_images")]


@pytest.mark.parametrize("path", FIELDS)
@pytest.mark.parametrize("value", ["seven", [1.0], None])
def test_what_is_of_another_type_is_named(state, path, value):
    plain = state.to_plain()
    section_with(plain, path)[path[-1]] = value
    with pytest.raises(CheckpointError, match=rf"last\.pt: the state .*: {'.'.join(path)};"):
        TrainState.from_plain(plain, "last.pt")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("progress", "step"), -1),
        (("progress", "evaluated_step"), -1),
        (("progress", "losses", "num_steps"), -1),
        (("ema", "num_averaged"), -1),
        (("data", "num_images"), -1),
        (("world_size",), -1),
        (("scaler",), {"scale": "x"}),
        (("scaler",), {"scale": float("nan")}),
    ],
)
def test_what_is_out_of_bounds_is_named(state, path, value):
    plain = state.to_plain()
    section_with(plain, path)[path[-1]] = value
    with pytest.raises(CheckpointError, match=rf"last\.pt: the state .*: {'.'.join(path)}"):
        TrainState.from_plain(plain, "last.pt")


@pytest.mark.parametrize("path", FIELDS)
def test_what_is_missing_is_named(state, path):
    plain = state.to_plain()
    del section_with(plain, path)[path[-1]]
    with pytest.raises(CheckpointError, match=rf"last\.pt: the state .*: {'.'.join(path)};"):
        TrainState.from_plain(plain, "last.pt")


def test_means_are_taken_once():
    losses = LossSums()
    losses.add({"loss": 1.0, "grad_norm": 4.0})
    losses.add({"loss": 2.0, "grad_norm": 2.0, "skipped": 1.0})
    assert losses.take_means() == {"loss": 1.5, "grad_norm": 3.0, "skipped": 0.5}
    assert losses == LossSums()
