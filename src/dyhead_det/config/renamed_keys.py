"""Keys that had another name: what they are called now, for people and for old checkpoints."""

from typing import Any

RENAMED_KEYS = {
    "model.body": "model.backbone",
    "optim.body_lr_factor": "optim.backbone_lr_factor",
    "train.freeze.body_epochs": "train.freeze.backbone_epochs",
    "train.freeze.body_steps": "train.freeze.backbone_steps",
}
"""Dotted keys of version 0.1 and what they are called since; only the last word differs."""


def with_new_names(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the plain values of a configuration with today's keys, in the same order."""
    renamed: dict[str, Any] = {}
    for key, value in config.items():
        path = f"{prefix}{key}"
        name = RENAMED_KEYS.get(path, path).rpartition(".")[2]
        renamed[name] = with_new_names(value, f"{path}.") if isinstance(value, dict) else value
    return renamed
