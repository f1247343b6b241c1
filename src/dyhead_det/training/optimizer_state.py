"""The state of an optimizer, as a file has it, compared with the parameters before it is taken."""

from typing import Any

import torch
from torch import Tensor

from dyhead_det.checkpoints.state_dicts import misfit, require_finite
from dyhead_det.errors import CheckpointError
from dyhead_det.escaping import printable

_STEP = "step"
# What a state of another form makes PyTorch, or this file, raise.
_MISFITS = (ValueError, LookupError, TypeError, AttributeError, RuntimeError)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any], *, source: str) -> None:
    """Fill an optimizer with what another one of its kind knew of the same parameters.

    What its groups are set to stays as it is: that is the configuration's.

    Args:
        optimizer: Changed in place.
        state: State dict, as it was read from a file.
        source: The file, for messages.

    Raises:
        CheckpointError: If anything in it is not what an optimizer of these parameters has.
    """
    groups = optimizer.state_dict()["param_groups"]
    try:
        if [group["params"] for group in state["param_groups"]] != [g["params"] for g in groups]:
            raise ValueError("the parameters are grouped otherwise")
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        for index, values in state["state"].items():
            _require_fitting(values, parameters[index], place=f"state.{index}")
        optimizer.load_state_dict({"state": state["state"], "param_groups": groups})
    except (*_MISFITS, CheckpointError) as error:
        reason = printable(error, max_length=200)
        msg = f"{source}: the state of its optimizer is another run's ({reason})"
        raise CheckpointError(msg) from error


def _require_fitting(values: dict[str, Any], parameter: Tensor, *, place: str) -> None:
    """Check what is known of one parameter: numbers as many as it has, and a count of steps."""
    for name, value in values.items():
        if value is None:  # SGD without momentum
            continue
        own = torch.zeros(()) if name == _STEP else parameter
        problem = misfit(value, own)
        if problem is None and name == _STEP and value < 0:
            problem = "a negative number"
        if problem is not None:
            raise ValueError(f"{place}.{name} has {problem}")
        require_finite({name: value}, source=place)
