"""A new run that goes on from the checkpoint of another one, under other settings."""

import logging
from dataclasses import replace
from pathlib import Path

from dyhead_det.checkpoints.checkpoint import Checkpoint
from dyhead_det.config.checks import require_honorable
from dyhead_det.config.schema import changed_keys, to_plain
from dyhead_det.errors import CheckpointError, ConfigError
from dyhead_det.escaping import listed
from dyhead_det.training.resume import load_state, training_state
from dyhead_det.training.run import Run
from dyhead_det.training.state import Progress

logger = logging.getLogger(__name__)

# What gives weights and the optimizer's state their form and meaning; all else may differ.
KEPT_SECTIONS = ("model", "optim.name")
HARMLESS_KEYS = ("model.weights", "model.input", "model.dyhead.deform_backend")


def branch_off(run: Run, checkpoint: Checkpoint, path: Path) -> None:
    """Bring a new run to the step of a checkpoint, with its weights and its optimizer's state.

    Best AP, early stopping and the numbers of the other run are left behind.

    Args:
        run: Before its first step.
        checkpoint: `last.pt` of the other run, or a kept epoch of it.
        path: Its file.

    Raises:
        ConfigError: If model or optimizer are others, or no step is left.
        CheckpointError: If there is no state of a run in it, or the classes are others.
    """
    parts, state = run.parts, training_state(checkpoint, path)
    changed = changed_keys(to_plain(checkpoint.config), to_plain(parts.config), HARMLESS_KEYS)
    refused = [key for key in changed if key.startswith(KEPT_SECTIONS)]
    if refused:
        raise ConfigError(
            f"{path}: a branch has the model and the optimizer of its run; changed: "
            f"{', '.join(refused)}; undo that, or start from its weights alone: "
            f"model.weights={path}"
        )
    if checkpoint.categories.names != parts.train_data.categories.names:
        raise CheckpointError(
            f"{path}: its classes are {listed(checkpoint.categories.names)}, those of the data "
            f"{listed(parts.train_data.categories.names)}; start from its weights alone: "
            f"model.weights={path}"
        )
    step = state.progress.step
    if step >= parts.num_steps:
        raise ConfigError(
            f"train.steps or train.epochs: {parts.num_steps} steps in all, and {path} has done "
            f"{step} already; give more"
        )
    require_honorable(
        parts.config, num_steps=parts.num_steps, steps_per_epoch=parts.steps_per_epoch
    )
    load_state(parts, checkpoint, state, source=path)
    if state.scaler and parts.scaler.is_enabled():
        parts.scaler.load_state_dict(state.scaler)
    start = Progress.at_start(run.progress.early_stopping)
    run.progress = replace(start, step=step, evaluated_step=step)
    logger.info(
        "a branch of %s: goes on after step %d of %d with its weights and its optimizer's state; "
        "changed: %s",
        path,
        step,
        parts.num_steps,
        ", ".join(changed) or "nothing",
    )
