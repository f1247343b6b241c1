"""A stranger's state of an optimizer is compared with the parameters before it is taken."""

import copy

import pytest
import torch
from torch import nn

from dyhead_det.errors import CheckpointError
from dyhead_det.training.optimizer_state import load_optimizer


def make_optimizer(kind=torch.optim.AdamW, *, weight_decay=0.1):
    """An optimizer of a weight (3, 2) and a bias (3,) after one step."""
    model = nn.Linear(2, 3)
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    optimizer = kind(model.parameters(), lr=0.1, weight_decay=weight_decay, **options)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_what_an_optimizer_knew_is_taken_and_what_it_is_set_to_is_not(kind):
    known = make_optimizer(kind).state_dict()
    known["param_groups"][0]["weight_decay"] = 7.0
    taker = make_optimizer(kind, weight_decay=0.1)
    load_optimizer(taker, known, source="last.pt")
    taken = taker.state_dict()
    assert taken["param_groups"][0]["weight_decay"] == 0.1
    for index, values in known["state"].items():
        for name, value in values.items():
            assert torch.equal(taken["state"][index][name], value)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("exp_avg", torch.zeros(4), "state.0.exp_avg has shape"),
        ("exp_avg", torch.zeros(3, 2, dtype=torch.int64), "numbers of type int64"),
        ("exp_avg", torch.zeros(3, 2, dtype=torch.complex64), "numbers of type complex64"),
        ("exp_avg_sq", torch.full((3, 2), float("nan")), "NaN or infinite numbers"),
        ("exp_avg_sq", 5, "no attribute"),
        ("step", torch.tensor(True), "state.0.step has numbers of type bool"),
        ("step", torch.tensor(-1.0), "state.0.step has a negative number"),
        ("step", torch.zeros(2), "state.0.step has shape"),
    ],
)
def test_values_that_no_optimizer_has_are_refused(name, value, problem):
    state = copy.deepcopy(make_optimizer().state_dict())
    state["state"][0][name] = value
    with pytest.raises(CheckpointError, match=rf"^last\.pt: the state of its opt.*{problem}"):
        load_optimizer(make_optimizer(), state, source="last.pt")


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"state": {}, "param_groups": []},
        {"state": {}, "param_groups": [{"params": [0]}]},
        {"state": "x", "param_groups": [{"params": [0, 1]}]},
        {"state": {0: 5}, "param_groups": [{"params": [0, 1]}]},
        {"state": {2: {}}, "param_groups": [{"params": [0, 1]}]},
        {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"params": [1, 0]}]},
    ],
)
def test_a_state_of_another_form_is_refused(state):
    with pytest.raises(CheckpointError, match=r"^last\.pt: the state of its optimizer"):
        load_optimizer(make_optimizer(), state, source="last.pt")
