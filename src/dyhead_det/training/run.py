"""A training run: its parts, built from a configuration, and how far it has come."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from dyhead_det.config.checks import require_honorable
from dyhead_det.config.schema import FreezeConfig, RunConfig
from dyhead_det.data.build_datasets import (
    image_counts,
    load_run_data,
)
from dyhead_det.data.coco.dataset import CocoDataset
from dyhead_det.data.samplers import samples_per_epoch
from dyhead_det.distributed.slow_step import StepPosition
from dyhead_det.distributed.world import get_world_size
from dyhead_det.errors import ConfigError
from dyhead_det.evaluation.evaluate import match_categories
from dyhead_det.models.detectors import Detector, build_detector
from dyhead_det.models.runtime import prepare_detector
from dyhead_det.pretrained.finetune import start_from
from dyhead_det.pretrained.named_weights import find_weights
from dyhead_det.reporting.metrics_file import MetricsFile
from dyhead_det.reporting.stopwatch import Stopwatch
from dyhead_det.training.early_stopping import EarlyStopping
from dyhead_det.training.ema import build_ema
from dyhead_det.training.frozen_backbone import BackboneFreezer
from dyhead_det.training.optim import LearningRate, build_optimizer, scaled_lr
from dyhead_det.training.part_log import PartLog
from dyhead_det.training.run_folder import BEST, LAST, METRICS
from dyhead_det.training.state import Progress


@dataclass(frozen=True, slots=True)
class RunParts:
    """What a run is made of, from its first step to its last.

    steps_per_epoch: Steps in which every image comes as often as `data.sampling` says.
    num_steps: The length of the run.
    augmentation: In place of the configuration's, as `train` takes it.
    ema: The moving average of the detector's weights, if one is kept.
    part_log: What measures the parts of the detector in every step, if asked for.
    """

    config: RunConfig
    out: Path
    device: torch.device
    train_data: CocoDataset
    val_data: CocoDataset | None
    detector: Detector
    ema: AveragedModel | None
    backbone_freezer: BackboneFreezer
    optimizer: torch.optim.Optimizer
    learning_rate: LearningRate
    augmentation: Callable[..., Any] | None
    scaler: torch.amp.GradScaler
    steps_per_epoch: int
    num_steps: int
    metrics_file: MetricsFile
    part_log: PartLog | None
    stopwatch: Stopwatch

    @property
    def evaluated_detector(self) -> Detector:
        """What is evaluated and saved: with EMA the average, else what is trained."""
        return self.detector if self.ema is None else cast("Detector", self.ema.module)

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


@dataclass(slots=True)
class Run:
    """A run as it goes.

    parts: What does not change.
    progress: What changes, and is saved.
    ddp_model: The detector as it is called in training, wrapped where there are several ranks.
    position: Where in a step it is.
    saved_at: When a checkpoint was last written, by `time.monotonic`.
    saved: Step and evaluated step of the last checkpoint that was written or restored.
    """

    parts: RunParts
    progress: Progress
    ddp_model: nn.Module
    position: StepPosition = field(default_factory=StepPosition)
    saved_at: float = field(default_factory=time.monotonic)
    saved: tuple[int, int] | None = None

    @property
    def epoch(self) -> float:
        """How often the data have been seen."""
        return self.progress.step / self.parts.steps_per_epoch

    @property
    def is_over(self) -> bool:
        """Whether no step is to follow: the last one is done, or early stopping says so."""
        early_stopping = self.progress.early_stopping
        stops_early = early_stopping is not None and early_stopping.is_over
        return self.progress.step >= self.parts.num_steps or stops_early

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to train and to evaluate."""
        progress = self.progress
        is_evaluated = self.parts.val_data is None or progress.evaluated_step == progress.step
        return self.is_over and is_evaluated

    @property
    def is_saved(self) -> bool:
        """Whether `last.pt` holds just this state."""
        return self.saved == (self.progress.step, self.progress.evaluated_step)

    def mark_saved(self) -> None:
        """Note that `last.pt` holds just this state."""
        self.saved = (self.progress.step, self.progress.evaluated_step)

    def saved_summary(self) -> str:
        """Return in words which step is saved where."""
        if self.saved is None:
            return "nothing is saved yet"
        return f"step {self.saved[0]} is saved in {self.parts.last_path}"


def build_run(
    config: RunConfig,
    out: Path,
    device: torch.device,
    *,
    is_new: bool,
    augmentation: Callable[..., Any] | None = None,
) -> Run:
    """Build a run before its first step.

    Args:
        config: What to build.
        out: The run folder.
        device: Where to train.
        is_new: Only then weights to start from are read.
        augmentation: In place of the configuration's, as `train` takes it.

    Raises:
        ConfigError: If there are more ranks than images in a batch, or settings contradict each
            other.
        DatasetError: If the data cannot be used.
    """
    if config.train.batch_size < get_world_size():
        msg = (
            f"train.batch_size: {config.train.batch_size} images for {get_world_size()} processes; "
            "it counts the images of all of them, so give at least one for each"
        )
        raise ConfigError(msg)
    train_data, val_data = load_run_data(config.data)
    if val_data is not None:  # better now than after the first epoch
        match_categories(train_data.categories, val_data.ground_truth()["categories"])
    num_samples = samples_per_epoch(len(train_data), image_counts(config.data.sampling, train_data))
    steps_per_epoch = math.ceil(num_samples / config.train.batch_size)
    num_steps = config.train.steps or (config.train.epochs or 0) * steps_per_epoch
    if is_new:  # one that goes on was looked at when it was new
        require_honorable(config, num_steps=num_steps, steps_per_epoch=steps_per_epoch)
    detector = _build_start(config, train_data, device, is_new=is_new)
    optimizer = build_optimizer(
        config.optim,
        detector,
        backbone=detector.backbone.body,
        lr=scaled_lr(config.optim, batch_size=config.train.batch_size),
    )
    parts = RunParts(
        config=config,
        out=out,
        device=device,
        train_data=train_data,
        val_data=val_data,
        detector=detector,
        ema=None if config.train.ema is None else build_ema(config.train.ema, detector),
        backbone_freezer=_backbone_freezer(config.train.freeze, detector, steps_per_epoch),
        optimizer=optimizer,
        learning_rate=LearningRate(config.schedule, optimizer, num_steps=num_steps),
        augmentation=augmentation,
        scaler=torch.amp.GradScaler(device.type, enabled=config.train.amp == "fp16"),
        steps_per_epoch=steps_per_epoch,
        num_steps=num_steps,
        metrics_file=MetricsFile(out / METRICS),
        part_log=(
            PartLog(detector, clip_norm=config.optim.clip_norm) if config.train.log_parts else None
        ),
        stopwatch=Stopwatch(),
    )
    stopping = config.train.early_stopping
    early_stopping = None
    if stopping is not None:
        early_stopping = EarlyStopping(stopping.patience, stopping.min_delta)
    return Run(parts, Progress.at_start(early_stopping), ddp_model=detector)


def _build_start(
    config: RunConfig, train_data: CocoDataset, device: torch.device, *, is_new: bool
) -> Detector:
    """Build the detector, with the weights to start from."""
    torch.manual_seed(config.seed)
    detector = build_detector(
        config.model,
        num_classes=len(train_data.categories),
        load_backbone_weights=is_new and config.model.weights is None,
    )
    if is_new and config.model.weights is not None:
        start_from(
            detector,
            find_weights(config.model.weights),
            categories=train_data.categories,
            config=config.model,
        )
    prepare_detector(config.runtime, detector, device)
    return detector


def _backbone_freezer(
    config: FreezeConfig | None, detector: Detector, steps_per_epoch: int
) -> BackboneFreezer:
    num_steps = 0
    if config is not None:
        num_steps = config.backbone_steps or (config.backbone_epochs or 0) * steps_per_epoch
    return BackboneFreezer(detector.backbone.body, num_steps=num_steps)
