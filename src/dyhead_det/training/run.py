"""The state of a training run: built from a configuration, kept in `last.pt` and restored."""

import logging
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from dyhead_det.checkpoints.checkpoint import Checkpoint
from dyhead_det.config.schema import (
    EarlyStoppingConfig,
    FreezeConfig,
    RunConfig,
    changed_keys,
    to_plain,
)
from dyhead_det.data.build_datasets import (
    image_counts,
    load_training_data,
    load_validation_data,
)
from dyhead_det.data.coco import CocoDataset
from dyhead_det.data.samplers import samples_per_epoch
from dyhead_det.distributed.world import get_world_size
from dyhead_det.errors import CheckpointError, ConfigError
from dyhead_det.evaluation.evaluate import match_categories
from dyhead_det.models.detectors import Detector, build_detector
from dyhead_det.models.runtime import prepare_detector
from dyhead_det.pretrained.finetune import start_from
from dyhead_det.reporting.metrics_file import MetricsFile, drop_rows_after
from dyhead_det.reporting.stopwatch import Stopwatch
from dyhead_det.training.early_stopping import EarlyStopping
from dyhead_det.training.ema import build_ema
from dyhead_det.training.frozen_backbone import BackboneFreezer
from dyhead_det.training.optim import LearningRate, build_optimizer, scaled_lr
from dyhead_det.training.run_folder import BEST, LAST, METRICS

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
    "train.tensorboard",
    "train.save_every_epochs",
    "train.save_every_steps",
    "train.save_every_minutes",
    "train.keep_every_epochs",
    EVAL_EVERY_EPOCHS,
    "runtime",  # all but the last digits
)


@dataclass(slots=True)
class Run:
    """Everything that a run holds; the second half changes as it goes.

    `ddp_model` is `detector` as it is called in training, wrapped where there are several ranks.
    """

    config: RunConfig
    out: Path
    device: torch.device
    train_data: CocoDataset
    val_data: CocoDataset | None
    detector: Detector
    ddp_model: nn.Module
    optimizer: torch.optim.Optimizer
    learning_rate: LearningRate
    scaler: torch.amp.GradScaler
    steps_per_epoch: int
    num_steps: int
    metrics_file: MetricsFile
    frozen_backbone: BackboneFreezer
    ema: AveragedModel | None
    early_stopping: EarlyStopping | None

    step: int = 0
    evaluated_step: int = 0
    best: dict[str, float | None] = field(default_factory=dict)
    metrics: dict[str, float | None] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    num_summed: int = 0
    saved_at: float = field(default_factory=time.monotonic)
    # Step and evaluated step of the last checkpoint that was written or restored.
    saved: tuple[int, int] | None = None
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    @property
    def epoch(self) -> float:
        """How often the data have been seen."""
        return self.step / self.steps_per_epoch

    @property
    def is_over(self) -> bool:
        """Whether no step is to follow: the last one is done, or patience has come to its end."""
        stops_early = self.early_stopping is not None and self.early_stopping.is_over
        return self.step >= self.num_steps or stops_early

    @property
    def tested_detector(self) -> Detector:
        """What is evaluated and kept: with EMA the average, else what is trained."""
        return self.detector if self.ema is None else cast("Detector", self.ema.module)

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to train and to evaluate."""
        is_evaluated = self.val_data is None or self.evaluated_step == self.step
        return self.is_over and is_evaluated

    @property
    def is_saved(self) -> bool:
        """Whether `last.pt` holds just this state."""
        return self.saved == (self.step, self.evaluated_step)

    @property
    def last_path(self) -> Path:
        """The checkpoint to go on from."""
        return self.out / LAST

    @property
    def best_path(self) -> Path:
        """The checkpoint with the best AP so far."""
        return self.out / BEST

    @property
    def metrics_path(self) -> Path:
        """Losses and COCO numbers, row by row."""
        return self.metrics_file.path

    def kept(self) -> str:
        """Say which step is saved where."""
        if self.saved is None:
            return "nothing is saved yet"
        return f"step {self.saved[0]} is saved in {self.last_path}"


def build_run(
    config: RunConfig,
    out: Path,
    device: torch.device,
    *,
    is_new: bool,
) -> Run:
    """Build all parts; only a new run reads weights to start from."""
    if config.train.batch_size < get_world_size():
        msg = (
            f"train.batch_size: {config.train.batch_size} images for {get_world_size()} processes; "
            "it counts the images of all of them, so give at least one for each"
        )
        raise ConfigError(msg)
    train_data = load_training_data(config.data)
    val_data = load_validation_data(config.data)
    if val_data is not None:  # better now than after the first epoch
        match_categories(train_data.categories, val_data.ground_truth()["categories"])
    torch.manual_seed(config.seed)
    detector = build_detector(
        config.model,
        num_classes=len(train_data.categories),
        load_backbone_weights=is_new and config.model.weights is None,
    )
    if is_new and config.model.weights is not None:
        start_from(
            detector,
            Path(config.model.weights),
            categories=train_data.categories,
            config=config.model,
        )
    prepare_detector(config.runtime, detector, device)
    optimizer = build_optimizer(
        config.optim,
        detector,
        backbone=detector.backbone.body,
        lr=scaled_lr(config.optim, batch_size=config.train.batch_size),
    )
    num_samples = samples_per_epoch(len(train_data), image_counts(config.data.sampling, train_data))
    steps_per_epoch = math.ceil(num_samples / config.train.batch_size)
    num_steps = config.train.steps or (config.train.epochs or 0) * steps_per_epoch
    return Run(
        config=config,
        out=out,
        device=device,
        train_data=train_data,
        val_data=val_data,
        detector=detector,
        ddp_model=detector,
        optimizer=optimizer,
        learning_rate=LearningRate(config.schedule, optimizer, num_steps=num_steps),
        scaler=torch.amp.GradScaler(device.type, enabled=config.train.amp == "fp16"),
        steps_per_epoch=steps_per_epoch,
        num_steps=num_steps,
        frozen_backbone=_frozen_backbone(
            config.train.freeze, detector, steps_per_epoch=steps_per_epoch
        ),
        ema=None if config.train.ema is None else build_ema(config.train.ema, detector),
        early_stopping=_early_stopping(config.train.early_stopping),
        metrics_file=MetricsFile(out / METRICS),
    )


def _frozen_backbone(
    config: FreezeConfig | None, detector: Detector, *, steps_per_epoch: int
) -> BackboneFreezer:
    num_steps = 0
    if config is not None:
        num_steps = config.backbone_steps or (config.backbone_epochs or 0) * steps_per_epoch
    return BackboneFreezer(detector.backbone.body, num_steps=num_steps)


def _early_stopping(config: EarlyStoppingConfig | None) -> EarlyStopping | None:
    return None if config is None else EarlyStopping(config.patience, config.min_delta)


def capture(run: Run, *, with_training: bool) -> Checkpoint:
    """Return what a checkpoint of this moment holds; `best.pt` goes without the training state.

    With EMA its model is the average, and the weights that are trained are part of the training
    state.
    """
    training = {
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
        "evaluated_step": run.evaluated_step,
        "best": run.best,
        "sums": run.sums,
        "num_summed": run.num_summed,
        "num_images": len(run.train_data),
        "data_digest": run.train_data.digest(),
        "patience": None if run.early_stopping is None else run.early_stopping.state_dict(),
        "ema": None,
        "num_processes": get_world_size(),
    }
    if run.ema is not None:
        training["ema"] = {
            "num_averaged": int(run.ema.n_averaged),
            "trained_model": run.detector.state_dict(),
        }
    return Checkpoint(
        config=run.config,
        categories=run.train_data.categories,
        model=run.tested_detector.state_dict(),
        step=run.step,
        metrics=run.metrics,
        training=training if with_training else None,
    )


def restore(run: Run, checkpoint: Checkpoint) -> None:
    """Bring a run to where a checkpoint of it was written, and its metrics file with it.

    Raises:
        ConfigError: If the configuration has changed in something that matters.
        CheckpointError: If the data have, or the checkpoint has no state to go on from.
    """
    training = checkpoint.training
    if training is None:
        msg = f"{run.last_path}: holds no state of a run to go on with"
        raise CheckpointError(msg)
    harmless = [
        key for key in HARMLESS_KEYS if run.early_stopping is None or key != EVAL_EVERY_EPOCHS
    ]
    changed = changed_keys(to_plain(checkpoint.config), to_plain(run.config), tuple(harmless))
    if changed:
        msg = (
            f"{run.last_path}: cannot go on with another configuration; changed: "
            f"{', '.join(changed)}; undo that, or start a new run with another --out"
        )
        raise ConfigError(msg)
    _require_same_data(run, training)
    run.tested_detector.load_state_dict(checkpoint.model)
    if run.ema is not None:
        run.detector.load_state_dict(training["ema"]["trained_model"])
        run.ema.n_averaged.fill_(training["ema"]["num_averaged"])
    if run.early_stopping is not None:
        run.early_stopping.load_state_dict(training["patience"])
    run.optimizer.load_state_dict(training["optimizer"])
    run.scaler.load_state_dict(training["scaler"])
    run.step, run.metrics = checkpoint.step, checkpoint.metrics
    run.evaluated_step, run.best = training["evaluated_step"], training["best"]
    run.sums, run.num_summed = training["sums"], training["num_summed"]
    run.saved = (run.step, run.evaluated_step)
    drop_rows_after(run.metrics_path, last_step=run.step, evaluated_step=run.evaluated_step)
    logger.info("going on after step %d of %d", run.step, run.num_steps)
    parts, before = run.config.train.accumulate, checkpoint.config.train.accumulate
    if parts != before:
        logger.info(
            "%s: batches come in %d parts instead of %d from here on: the same images and "
            "learning rates, but sums that are rounded and images that are padded otherwise",
            ACCUMULATE,
            parts,
            before,
        )
    if training["num_processes"] != get_world_size():
        logger.info(
            "with %d processes instead of %d from here on: the same images, drawn sizes and "
            "learning rates in every step, but sums that are rounded and images that are padded "
            "otherwise",
            get_world_size(),
            training["num_processes"],
        )


def _require_same_data(run: Run, training: dict[str, Any]) -> None:
    num_images = len(run.train_data)
    if training["num_images"] != num_images:
        difference = (
            f"it was trained on {training['num_images']} images, now there are {num_images}"
        )
    elif training["data_digest"] != run.train_data.digest():
        difference = f"names, sizes or annotations of the {num_images} images have changed"
    else:
        return
    msg = (
        f"{run.last_path}: cannot go on with other data: {difference}; bring back the old "
        f"{run.train_data.annotations_path}, or start a new run with another --out"
    )
    raise CheckpointError(msg)
