"""Train a detector: build, resume, then step -> log -> evaluate -> save, in this order.

A run is a function of configuration, data and seed: the order of the data follows from the seed
and the epoch, all other randomness from the seed and the step. So a run that was stopped goes on
with the same numbers as one that was not, whatever the number of workers.
"""

import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dyhead_det.checkpoints.checkpoint import Checkpoint, load_checkpoint
from dyhead_det.config.checks import without_effect
from dyhead_det.config.file import to_yaml
from dyhead_det.config.schema import RunConfig, flat_keys, to_plain
from dyhead_det.data.statistics import count, fingerprint
from dyhead_det.distributed.agreement import require_agreement
from dyhead_det.distributed.collectives import broadcast_object
from dyhead_det.distributed.launch import init_process_group
from dyhead_det.distributed.rank_zero import local_main_first, main_only, main_only_block
from dyhead_det.distributed.world import get_world_size
from dyhead_det.errors import ConfigError
from dyhead_det.files import written_whole
from dyhead_det.models.runtime import pytorch_switches
from dyhead_det.reporting.metrics_file import read_rows
from dyhead_det.reporting.summary import run_summary
from dyhead_det.training.branch import branch_off
from dyhead_det.training.loop import run_to_the_end
from dyhead_det.training.out_of_memory import explained_out_of_memory
from dyhead_det.training.resume import restore
from dyhead_det.training.run import Run, build_run
from dyhead_det.training.run_folder import REPORT, held_folder, load_last

logger = logging.getLogger(__name__)

# What may differ between ranks, since machines do; it changes no weight.
MACHINE_KEYS = (
    "data.root",
    "data.num_workers",
    "data.prefetch_factor",
    "data.persistent_workers",
    "data.pin_memory",
)


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a run has reached.

    num_steps: Steps done, those before a resumption too.
    best: COCO numbers of the best evaluation, empty without validation data.
    checkpoint: The file to use from now on.
    was_finished: There was nothing left to do.
    details: AP by class and the path of the report, as text for a terminal.
    """

    num_steps: int
    best: dict[str, float | None]
    checkpoint: Path
    was_finished: bool
    details: str = ""

    def summary(self) -> str:
        """Return what was reached and where it lies, one line of numbers first."""
        done = "was finished already" if self.was_finished else "done"
        reached = "no validation data, no AP"
        if self.best:
            ap, ap50 = self.best["AP"] or 0.0, self.best["AP50"] or 0.0
            reached = f"AP {ap:.3f}, AP50 {ap50:.3f} at step {int(self.best['step'] or 0)}"
        line = f"{done}: {self.num_steps} steps; {reached} -> {self.checkpoint}"
        return f"{line}\n\n{self.details}" if self.details else line


def train(
    config: RunConfig,
    out: Path | str,
    *,
    augmentation: Callable[..., Any] | None = None,
    device: torch.device | str = "auto",
    resume: bool = False,
    branch: Path | str | None = None,
) -> TrainResult:
    """Train a detector and leave its checkpoints, numbers and curves in a folder.

    Switches and random generators of the process are as before when it ends. In another thread
    than the main one signals end the process as ever, without a last checkpoint.

    Args:
        config: The run; `dyhead_det.config.file.load_config` reads it from a YAML file.
        out: The run folder: config.yaml, metrics.jsonl, last.pt, best.pt, report.html, curves.png.
        augmentation: In place of `data.augment`: any transform of `torchvision.transforms.v2`, or a
            function of an image (`tv_tensors.Image`, uint8) and a target (`boxes`, a
            `tv_tensors.BoundingBoxes`, and `labels`) that returns both. It should draw from the
            generators of PyTorch, NumPy or Python, which are seeded for every image.
        device: As `--device`; a name joins the processes that torchrun has started.
        resume: Go on from `out/last.pt` if it is there.
        branch: Start from this checkpoint of another run, `last.pt` or a kept epoch, at its step
            and with its optimizer's state; the configuration may differ but for model and
            optimizer.

    Raises:
        ConfigError: If the folder holds another run, or cannot be written, or ranks differ.
        CheckpointError: If no checkpoint can be read, or data have changed.
        DatasetError: If annotations or images cannot be used.
        NonFiniteLossError: If a loss is NaN or infinite.
        TrainingError: If memory, a worker process or the disk at the end fails.
        StoppedError: If the run was stopped by a signal; it is saved then.
    """
    if isinstance(device, str):
        with init_process_group(device) as own_device:
            return train(
                config,
                out,
                augmentation=augmentation,
                device=own_device,
                resume=resume,
                branch=branch,
            )
    out = Path(out)
    require_agreement({"--device": device.type, **_comparable(config)})
    with (
        main_only_block(held_folder(out)),
        pytorch_switches(config.runtime),
        _generators_restored(device),
    ):
        checkpoint = broadcast_object(lambda: _checkpoint_to_go_on_from(out, resume=resume))
        origin = None  # a branch that was begun already is a run that goes on
        if branch is not None and checkpoint is None:
            origin = broadcast_object(lambda: load_checkpoint(Path(branch)))
        with (
            explained_out_of_memory(config, device, lambda: "nothing is saved yet"),
            local_main_first(),
        ):
            run = build_run(
                config,
                out,
                device,
                augmentation=augmentation,
                is_new=checkpoint is None and origin is None,
            )
        require_agreement(
            {
                "data.train": fingerprint(run.parts.train_data),
                "data.val": run.parts.val_data and fingerprint(run.parts.val_data),
            }
        )
        if checkpoint is not None:
            restore(run, checkpoint)
        elif origin is not None:
            branch_off(run, origin, Path(origin.source))
        elif resume:
            logger.info("nothing to go on from in %s: a new run", out)
        _prepare_folder(run, is_new=checkpoint is None)
        for line in without_effect(config):
            logger.warning("%s", line)
        _log_start(run)
        was_finished = run.is_finished
        if not was_finished:
            with explained_out_of_memory(config, device, run.saved_summary):
                run_to_the_end(run)
    return _result(run, was_finished=was_finished)


def _checkpoint_to_go_on_from(out: Path, *, resume: bool) -> Checkpoint | None:
    checkpoint = load_last(out)
    if checkpoint is not None and not resume:
        msg = f"{out}: holds a run; go on with it by --resume, or give another folder by --out"
        raise ConfigError(msg)
    return checkpoint


def _comparable(config: RunConfig) -> dict[str, object]:
    """Return the values that all ranks must have in common, by dotted key."""
    flat = flat_keys(to_plain(config))
    return {key: value for key, value in flat.items() if key not in MACHINE_KEYS}


@contextmanager
def _generators_restored(device: torch.device) -> Iterator[None]:
    """Leave the random generators of PyTorch, NumPy and Python as they were."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


@main_only
def _prepare_folder(run: Run, *, is_new: bool) -> None:
    if is_new:
        run.parts.metrics_path.unlink(missing_ok=True)
    with written_whole(run.parts.out / "config.yaml") as unfinished:
        unfinished.write_text(to_yaml(run.parts.config), encoding="utf-8")


def _log_start(run: Run) -> None:
    parts = run.parts
    logger.info(
        "%s on %s%s: %d images to train on, %d to validate on, %d classes; %s -> %s",
        parts.config.model.detector.name,
        parts.device.type,
        f" in {get_world_size()} processes" if get_world_size() > 1 else "",
        len(parts.train_data),
        0 if parts.val_data is None else len(parts.val_data),
        len(parts.train_data.categories),
        describe_length(parts.num_steps, parts.steps_per_epoch),
        parts.out,
    )


def describe_length(num_steps: int, steps_per_epoch: int) -> str:
    """Return the length of a run in words, such as `3 epochs of 10 steps`."""
    num_epochs, rest = divmod(num_steps, steps_per_epoch)
    of_steps = f"of {steps_per_epoch} step{'s' * (steps_per_epoch > 1)}"
    if rest:
        return f"{num_steps} steps, {num_steps / steps_per_epoch:.3g} epochs {of_steps}"
    return f"{num_epochs} epoch{'s' * (num_epochs > 1)} {of_steps}"


def _result(run: Run, *, was_finished: bool) -> TrainResult:
    parts, best = run.parts, run.progress.best
    best_step = best.get("step")
    details = run_summary(
        read_rows(parts.metrics_path),
        best_step=None if best_step is None else int(best_step),
        num_objects={} if parts.val_data is None else count(parts.val_data).objects_of_class,
        report=parts.out / REPORT,
    )
    return TrainResult(
        run.progress.step,
        best,
        parts.best_path if best else parts.last_path,
        was_finished,
        details,
    )
