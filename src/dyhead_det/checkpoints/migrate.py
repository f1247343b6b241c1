"""Formats of checkpoints: what changed from one version to the next, and how old files are read.

Version 1 was written by 0.1. Version 2 calls the backbone of a configuration `backbone`, no longer
`body`, and keeps the state of a run in sections of its own, no longer flat. Version 3 knows
TensorBoard as one of `train.trackers`, no longer as `train.tensorboard`. The names of weights are
those of version 1.
"""

from collections.abc import Callable
from typing import Any

from dyhead_det.config.renamed_keys import with_new_names, with_tensorboard_among_trackers

VERSION = 3
"""The format that is written."""

FIRST_VERSION = 1


def migrate(content: dict[str, Any], version: int) -> dict[str, Any]:
    """Return the content of a checkpoint as the current version would have written it.

    Args:
        content: What the file holds, unchecked but for the form of its configuration: a dictionary.
        version: `FIRST_VERSION` to `VERSION`, as the file says.
    """
    for step in range(version, VERSION):
        content = _STEPS[step](content)
    return content


def _name_the_backbone_and_order_the_state(content: dict[str, Any]) -> dict[str, Any]:
    state = content["training"]
    return {
        **content,
        "config": with_new_names(content["config"]),
        "training": None if state is None else _ordered_state(content, state),
    }


def _name_tensorboard_among_the_trackers(content: dict[str, Any]) -> dict[str, Any]:
    return {**content, "config": with_tensorboard_among_trackers(content["config"])}


def _ordered_state(content: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of version 2's `TrainState` from the flat section of version 1."""
    return {
        "progress": {
            "step": content["step"],
            "evaluated_step": state["evaluated_step"],
            "metrics": content["metrics"],
            "best": state["best"],
            "losses": {"sums": state["sums"], "num_steps": state["num_summed"]},
            "early_stopping": state["patience"],
        },
        "optimizer": state["optimizer"],
        "scaler": state["scaler"],
        "ema": state["ema"],
        "data": {"num_images": state["num_images"], "digest": state["data_digest"]},
        "world_size": state["num_processes"],
    }


# From which version a step leads to the next one.
_STEPS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: _name_the_backbone_and_order_the_state,
    2: _name_tensorboard_among_the_trackers,
}
