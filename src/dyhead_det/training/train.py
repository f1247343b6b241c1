"""Train a detector: build, resume, then step -> log -> evaluate -> save, in this order.

A run is a function of configuration, data and seed: the order of the data follows from the seed
and the epoch, all other randomness from the seed and the step. So a run that was stopped goes on
with the same numbers as one that was not, whatever the number of workers.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from dyhead_det.checkpoints.checkpoint import Checkpoint
from dyhead_det.config.file import to_yaml
from dyhead_det.config.schema import RunConfig
from dyhead_det.distributed.collectives import broadcast_object
from dyhead_det.distributed.rank_zero import local_main_first, main_only, main_only_block
from dyhead_det.distributed.world import get_world_size
from dyhead_det.errors import (
    ConfigError,
)
from dyhead_det.files import written_whole
from dyhead_det.models.runtime import pytorch_switches
from dyhead_det.training.loop import run_to_the_end
from dyhead_det.training.out_of_memory import explained_out_of_memory
from dyhead_det.training.resume import restore
from dyhead_det.training.run import Run, build_run
from dyhead_det.training.run_folder import held_folder, load_last

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a run has reached.

    num_steps: steps done, those before a resumption too.
    best: COCO numbers of the best evaluation, empty without validation data.
    checkpoint: the file to use from now on.
    """

    num_steps: int
    best: dict[str, float | None]
    checkpoint: Path
    was_finished: bool

    def summary(self) -> str:
        """Say in one line what was reached and where it lies."""
        done = "was finished already" if self.was_finished else "done"
        reached = "no validation data, no AP"
        if self.best:
            ap, ap50 = self.best["AP"] or 0.0, self.best["AP50"] or 0.0
            reached = f"AP {ap:.3f}, AP50 {ap50:.3f} at step {self.best['step']}"
        return f"{done}: {self.num_steps} steps; {reached} -> {self.checkpoint}"


def train(
    config: RunConfig,
    out: Path,
    *,
    device: torch.device,
    resume: bool,
) -> TrainResult:
    """Train a detector and leave its checkpoints, numbers and curves in a folder.

    Args:
        config: The run.
        out: The run folder: config.yaml, metrics.jsonl, last.pt, best.pt, curves.png.
        device: Where to run.
        resume: Go on from `out/last.pt` if it is there.

    Raises:
        ConfigError: If the folder holds another run, or cannot be written.
        CheckpointError: If no checkpoint can be read, or data have changed.
        DatasetError: If annotations or images cannot be used.
        NonFiniteLossError: If a loss is NaN or infinite.
        TrainingError: If memory, a worker process or the disk at the end fails.
        StoppedError: If the run was stopped by a signal; it is saved then.
    """
    with main_only_block(held_folder(out)), pytorch_switches(config.runtime):
        checkpoint = broadcast_object(lambda: _checkpoint_to_go_on_from(out, resume=resume))
        with (
            explained_out_of_memory(config, device, lambda: "nothing is saved yet"),
            local_main_first(),
        ):
            run = build_run(config, out, device, is_new=checkpoint is None)
        if checkpoint is not None:
            restore(run, checkpoint)
        elif resume:
            logger.info("nothing to go on from in %s: a new run", out)
        _prepare_folder(run, is_new=checkpoint is None)
        _log_start(run)
        was_finished = run.is_finished
        if not was_finished:
            with explained_out_of_memory(config, device, run.saved_summary):
                run_to_the_end(run)
    result_path = run.parts.best_path if run.progress.best else run.parts.last_path
    return TrainResult(run.progress.step, run.progress.best, result_path, was_finished)


def _checkpoint_to_go_on_from(out: Path, *, resume: bool) -> Checkpoint | None:
    checkpoint = load_last(out)
    if checkpoint is not None and not resume:
        msg = f"{out}: holds a run; go on with it by --resume, or give another folder by --out"
        raise ConfigError(msg)
    return checkpoint


@main_only
def _prepare_folder(run: Run, *, is_new: bool) -> None:
    if is_new:
        run.parts.metrics_path.unlink(missing_ok=True)
    with written_whole(run.parts.out / "config.yaml") as unfinished:
        unfinished.write_text(to_yaml(run.parts.config), encoding="utf-8")


def _log_start(run: Run) -> None:
    num_val = 0 if run.parts.val_data is None else len(run.parts.val_data)
    logger.info(
        "%s on %s%s: %d images to train on, %d to validate on, %d classes; steps %d to %d of %d "
        "an epoch -> %s",
        run.parts.config.model.detector.name,
        run.parts.device.type,
        f" in {get_world_size()} processes" if get_world_size() > 1 else "",
        len(run.parts.train_data),
        num_val,
        len(run.parts.train_data.categories),
        run.progress.step,
        run.parts.num_steps,
        run.parts.steps_per_epoch,
        run.parts.out,
    )
