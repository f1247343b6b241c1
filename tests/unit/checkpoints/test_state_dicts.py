"""State dicts: every key reported, and nothing taken that means something else."""

import pytest
import torch
from torch import nn

from dyhead_det.checkpoints.state_dicts import (
    is_computed,
    load_exactly,
    load_into,
    require_finite,
)
from dyhead_det.errors import CheckpointError


def test_loading_reports_every_key():
    module = torch.nn.Linear(2, 3)
    report = load_into(
        module,
        {"weight": torch.ones(3, 2), "extra": torch.zeros(1), "head.w": torch.zeros(1)},
        source="test",
        ignored=("head.",),
    )
    assert report.loaded == ("weight",)
    assert report.missing == ("bias",)
    assert report.unexpected == ("extra",)
    assert torch.equal(module.weight, torch.ones(3, 2))


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("load", [load_into, load_exactly])
@pytest.mark.parametrize(
    ("weight", "problem"),
    [
        (torch.ones(2, 3), r"weight shape \(2, 3\) instead of \(3, 2\)"),
        (torch.ones(3, 2, dtype=torch.complex64), "weight numbers of type complex64 instead of fl"),
        (torch.ones(3, 2, dtype=torch.bool), "weight numbers of type bool instead of float32"),
        (torch.ones(3, 2, dtype=torch.int64), "weight numbers of type int64 instead of float32"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_changed(load, weight, problem):
    module = nn.Linear(2, 3)
    before = module.weight.clone()
    with pytest.raises(CheckpointError, match=f"^x: made for another model, .*{problem}"):
        load(module, {"weight": weight, "bias": torch.zeros(3)}, source="x")
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize("number", [NAN, INF, -INF])
def test_numbers_that_are_none_are_refused(number):
    tensors = {"weight": torch.ones(3, 2), "bias": torch.tensor([0.0, number, 1.0])}
    with pytest.raises(CheckpointError, match="x: NaN or infinite numbers in 1 of 2 tensors: bias"):
        load_into(nn.Linear(2, 3), tensors, source="x")


def test_numbers_beyond_float32_are_refused_since_they_become_infinite():
    tensors = {"weight": torch.full((3, 2), 1e300, dtype=torch.float64)}
    with pytest.raises(CheckpointError, match="x: NaN or infinite numbers in 1 of 1 tensors"):
        require_finite(tensors, source="x")


def test_a_negative_variance_is_refused_since_its_root_is_no_number():
    tensors = {"norm.running_var": torch.tensor([1.0, -1.0]), "norm.running_mean": -torch.ones(2)}
    with pytest.raises(CheckpointError, match=r"x: variances below zero in 1 of 2.*running_var"):
        require_finite(tensors, source="x")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_floats_of_eight_bits_are_compared_too(dtype):
    require_finite({"weight": torch.ones(2).to(dtype)}, source="x")
    with pytest.raises(CheckpointError, match="x: NaN"):
        require_finite({"weight": torch.tensor([float("nan")]).to(dtype)}, source="x")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_any_width_are_taken(dtype):
    module = nn.Linear(1, 1)
    tensors = {"weight": torch.tensor([[0.5]], dtype=dtype), "bias": torch.zeros(1, dtype=dtype)}
    load_exactly(module, tensors, source="x")
    assert (module.weight.item(), module.weight.dtype) == (0.5, torch.float32)


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["weight"], "1 missing: bias"),
        (["weight", "bias", "more"], "1 without a place in the model: more"),
        (["other"], "2 missing: weight, bias; 1 without a place in the model: other"),
    ],
)
def test_loading_exactly_wants_every_key_and_no_other(names, problem):
    with pytest.raises(CheckpointError, match=problem):
        load_exactly(nn.Linear(1, 1), {name: torch.ones(1, 1) for name in names}, source="x")


class WithIndex(nn.Module):
    """A norm, which counts, and an index as Swin's windows have it."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.register_buffer("relative_position_index", torch.arange(3))


@pytest.mark.parametrize("index", [torch.zeros(3, dtype=torch.int64), None])
def test_an_index_is_computed_and_a_counter_is_read(index):
    module = WithIndex()
    tensors = {**module.state_dict(), "norm.num_batches_tracked": torch.tensor(7)}
    if index is None:
        del tensors["relative_position_index"]
    else:
        tensors["relative_position_index"] = index
    load_exactly(module, tensors, source="x")
    assert module.relative_position_index.tolist() == [0, 1, 2]
    assert module.norm.num_batches_tracked == 7
    own = module.state_dict()
    assert [name for name in own if is_computed(name, own[name])] == ["relative_position_index"]
