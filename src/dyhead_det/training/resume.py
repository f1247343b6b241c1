"""From a run to its checkpoint and back: what is kept, what may differ, what is refused."""

import logging
from pathlib import Path

from dyhead_det.checkpoints.checkpoint import Checkpoint
from dyhead_det.checkpoints.state_dicts import load_exactly
from dyhead_det.config.schema import RunConfig, changed_keys, to_plain
from dyhead_det.data.statistics import fingerprint
from dyhead_det.distributed.world import get_world_size
from dyhead_det.errors import CheckpointError, ConfigError
from dyhead_det.reporting.metrics_file import drop_rows_after
from dyhead_det.training.optim import learning_rate_factor
from dyhead_det.training.optimizer_state import load_optimizer
from dyhead_det.training.run import Run, RunParts
from dyhead_det.training.state import DataFingerprint, EMAState, TrainState

logger = logging.getLogger(__name__)

# What may differ between a run and its resumption: it changes no weight.
EVAL_EVERY_EPOCHS = "train.eval_every_epochs"  # unless evaluations can end the run
ACCUMULATE = "train.accumulate"  # all but the last digits, and what padding does
HARMLESS_KEYS = (
    ACCUMULATE,
    "data.root",
    "data.num_workers",
    "data.prefetch_factor",
    "data.persistent_workers",
    "data.pin_memory",
    "eval",
    "train.log_every_steps",
    "train.log_parts",
    "train.trackers",
    "train.save_every_epochs",
    "train.save_every_steps",
    "train.save_every_minutes",
    "train.keep_every_epochs",
    EVAL_EVERY_EPOCHS,
    "runtime",  # all but the last digits
)
# What may differ too, and changes the learning rate: a run may be made longer.
LENGTH_KEYS = ("train.steps", "train.epochs")


def capture(run: Run, *, with_training: bool) -> Checkpoint:
    """Return what a checkpoint of this moment holds; `best.pt` goes without the training state.

    With EMA its model is the average, and the weights that are trained are part of the training
    state.
    """
    parts, progress = run.parts, run.progress
    return Checkpoint(
        config=parts.config,
        categories=parts.train_data.categories,
        model=parts.evaluated_detector.state_dict(),
        step=progress.step,
        metrics=progress.metrics,
        min_scores=progress.min_scores,
        held_out=_held_out(parts),
        training=_train_state(run).to_plain() if with_training else None,
    )


def _held_out(parts: RunParts) -> str | None:
    """Return in words the images that are a share of the training images, to know them again."""
    val = parts.config.data.val
    is_share = val is not None and val.share is not None
    return fingerprint(parts.val_data) if is_share and parts.val_data is not None else None


def _train_state(run: Run) -> TrainState:
    parts, ema = run.parts, None
    if parts.ema is not None:
        ema = EMAState(int(parts.ema.n_averaged), parts.detector.state_dict())
    return TrainState(
        progress=run.progress,
        optimizer=parts.optimizer.state_dict(),
        scaler=parts.scaler.state_dict(),
        ema=ema,
        data=_data_fingerprint(parts),
        world_size=get_world_size(),
    )


def _data_fingerprint(parts: RunParts) -> DataFingerprint:
    return DataFingerprint(len(parts.train_data), parts.train_data.digest())


def restore(run: Run, checkpoint: Checkpoint) -> None:
    """Bring a run to where a checkpoint of it was written, and its metrics file with it.

    Raises:
        ConfigError: If the configuration has changed in something that matters.
        CheckpointError: If the data have, or the checkpoint has no state to go on from.
    """
    parts, path = run.parts, run.parts.last_path
    state = training_state(checkpoint, path)
    _require_same_configuration(parts, checkpoint.config)
    _require_same_data(parts, state.data)
    _require_steps_left(parts, state.progress.step)
    load_state(parts, checkpoint, state, source=path)
    try:
        parts.scaler.load_state_dict(state.scaler)
    except (LookupError, RuntimeError) as error:
        msg = f"{path}: the state of its gradient scaler is another run's"
        raise CheckpointError(msg) from error
    run.progress = state.progress
    run.mark_saved()
    drop_rows_after(
        parts.metrics_path,
        last_step=run.progress.step,
        evaluated_step=run.progress.evaluated_step,
    )
    logger.info("going on after step %d of %d", run.progress.step, parts.num_steps)
    _log_differences(run, checkpoint.config, state)


def training_state(checkpoint: Checkpoint, path: Path) -> TrainState:
    """Return what a checkpoint keeps of its run.

    Raises:
        CheckpointError: If it keeps nothing, or that is damaged.
    """
    if checkpoint.training is None:
        msg = f"{path}: holds no state of a run to go on with"
        raise CheckpointError(msg)
    state = TrainState.from_plain(checkpoint.training, path)
    if state.progress.step != checkpoint.step:
        raise CheckpointError(
            f"{path}: damaged: the weights are of step {checkpoint.step}, the state of the run of "
            f"step {state.progress.step}"
        )
    return state


def load_state(parts: RunParts, checkpoint: Checkpoint, state: TrainState, *, source: Path) -> None:
    """Fill detector, average and optimizer, and set the learning rate of the step.

    Raises:
        CheckpointError: If something does not fit.
    """
    trained = checkpoint.model if state.ema is None else state.ema.trained_model
    without_ema = "" if state.ema is None else ": without EMA"
    load_exactly(parts.detector, trained, source=f"{source}{without_ema}")
    if parts.ema is not None:
        load_exactly(parts.evaluated_detector, checkpoint.model, source=str(source))
        if state.ema is not None:
            parts.ema.n_averaged.fill_(state.ema.num_averaged)
    load_optimizer(parts.optimizer, state.optimizer, source=str(source))
    if state.progress.step > 0:  # the rate of the last step, which a run with none left saves again
        parts.learning_rate.set(state.progress.step - 1)


def _require_same_configuration(parts: RunParts, before: RunConfig) -> None:
    stops_early = parts.config.train.early_stopping is not None
    harmless = [key for key in HARMLESS_KEYS if not (stops_early and key == EVAL_EVERY_EPOCHS)]
    may_differ = (*harmless, *LENGTH_KEYS)
    changed = changed_keys(to_plain(before), to_plain(parts.config), may_differ)
    if changed:
        msg = (
            f"{parts.last_path}: cannot go on with another configuration; changed: "
            f"{', '.join(changed)}; undo that, or start a new run with another --out"
        )
        raise ConfigError(msg)


def _require_same_data(parts: RunParts, before: DataFingerprint) -> None:
    now = _data_fingerprint(parts)
    if before.num_images != now.num_images:
        difference = f"it was trained on {before.num_images} images, now there are {now.num_images}"
    elif before.digest != now.digest:
        difference = f"names, sizes or annotations of the {now.num_images} images have changed"
    else:
        return
    msg = (
        f"{parts.last_path}: cannot go on with other data: {difference}; bring back the old "
        f"{parts.train_data.annotations_path}, or start a new run with another --out"
    )
    raise CheckpointError(msg)


def _require_steps_left(parts: RunParts, step: int) -> None:
    if step > parts.num_steps:
        key = LENGTH_KEYS[0] if parts.config.train.steps is not None else LENGTH_KEYS[1]
        raise ConfigError(
            f"{key}: {parts.num_steps} steps in all, and {parts.last_path} has done {step} "
            "already; give at least as many"
        )


def _log_differences(run: Run, before: RunConfig, state: TrainState) -> None:
    """Log what goes on in another way than it began."""
    train = run.parts.config.train
    if any(getattr(train, key) != getattr(before.train, key) for key in ("steps", "epochs")):
        _log_new_length(run, before)
    if train.accumulate != before.train.accumulate:
        logger.info(
            "%s: batches come in %d micro-batches instead of %d from here on: the same images and "
            "learning rates, but sums that are rounded and images that are padded otherwise",
            ACCUMULATE,
            train.accumulate,
            before.train.accumulate,
        )
    if state.world_size != get_world_size():
        logger.info(
            "with %d processes instead of %d from here on: the same images, drawn sizes and "
            "learning rates in every step, but sums that are rounded and images that are padded "
            "otherwise",
            get_world_size(),
            state.world_size,
        )


def _log_new_length(run: Run, before: RunConfig) -> None:
    parts, step = run.parts, run.progress.step
    steps_before = before.train.steps or (before.train.epochs or 0) * parts.steps_per_epoch
    if steps_before == parts.num_steps:
        return
    lr_before, lr_now = (
        max(parts.learning_rate.base)
        * learning_rate_factor(parts.config.schedule, step, num_steps=num_steps)
        for num_steps in (steps_before, parts.num_steps)
    )
    schedule = "the learning rate goes on as it is"
    if lr_before != lr_now:
        schedule = (
            f"the schedule is that of {parts.num_steps} steps, by which the learning rate of step "
            f"{step + 1} is {lr_now:.3g} instead of {lr_before:.3g}"
        )
    logger.info("%d steps instead of %d from here on; %s", parts.num_steps, steps_before, schedule)
    early_stopping = run.progress.early_stopping
    if early_stopping is not None and early_stopping.is_over:
        logger.warning(
            "train.early_stopping has ended this run at step %d, however long it is; to train on, "
            "start a new one from its weights: model.weights=%s",
            step,
            parts.last_path,
        )
