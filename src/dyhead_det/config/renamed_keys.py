"""Keys of older versions: what took their place, for people and for old checkpoints."""

from typing import Any

_RENAMED_KEYS = {
    "model.body": "model.backbone",
    "optim.body_lr_factor": "optim.backbone_lr_factor",
    "train.freeze.body_epochs": "train.freeze.backbone_epochs",
    "train.freeze.body_steps": "train.freeze.backbone_steps",
}
"""Dotted keys of version 0.1 and what they are called since; only the last word differs."""

_REPLACED_KEYS = {
    "train.tensorboard": "is one of train.trackers now; write trackers: [tensorboard], or leave it "
    "out if it is false",
}


def advice_on_old_key(key: str) -> str | None:
    """Return what to do about a dotted key that older versions had; None for any other."""
    if key in _RENAMED_KEYS:
        return f"is called {_RENAMED_KEYS[key]} now; rename it"
    return _REPLACED_KEYS.get(key)


def with_new_names(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the plain values of a configuration with today's keys, in the same order."""
    renamed: dict[str, Any] = {}
    for key, value in config.items():
        path = f"{prefix}{key}"
        name = _RENAMED_KEYS.get(path, path).rpartition(".")[2]
        renamed[name] = with_new_names(value, f"{path}.") if isinstance(value, dict) else value
    return renamed


def with_tensorboard_among_trackers(config: dict[str, Any]) -> dict[str, Any]:
    """Return the plain values of a configuration without the switch `train.tensorboard`."""
    train = config.get("train")
    if not isinstance(train, dict) or "tensorboard" not in train:
        return config
    rest = {key: value for key, value in train.items() if key != "tensorboard"}
    trackers = rest.get("trackers") or ()
    if train["tensorboard"] is True and isinstance(trackers, list | tuple):
        rest["trackers"] = list(dict.fromkeys(("tensorboard", *map(str, trackers))))
    return {**config, "train": rest}
