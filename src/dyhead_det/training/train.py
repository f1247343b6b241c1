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
from dyhead_det.data.build_loaders import evaluation_loader, training_loader
from dyhead_det.data.coco import CocoDataset
from dyhead_det.data.loaders import DetectionLoader
from dyhead_det.distributed.collectives import broadcast_object
from dyhead_det.distributed.ddp import wrap_ddp
from dyhead_det.distributed.rank_zero import local_main_first, main_only, main_only_block
from dyhead_det.distributed.stopping import StopRequested, StopSignals
from dyhead_det.distributed.world import get_world_size
from dyhead_det.errors import (
    ConfigError,
    DatasetError,
    LostProcessError,
    StoppedError,
    WorkerDiedError,
)
from dyhead_det.evaluation.coco_scores import EvalResult
from dyhead_det.evaluation.evaluate import evaluate_detector
from dyhead_det.evaluation.ground_truth import CocoResult
from dyhead_det.files import written_whole
from dyhead_det.models.detectors import Detector
from dyhead_det.models.runtime import pytorch_switches
from dyhead_det.reporting.progress import TrainProgress, memory_gib
from dyhead_det.reporting.stopwatch import EVALUATION, LOADING, STEPS
from dyhead_det.training.out_of_memory import explained_out_of_memory
from dyhead_det.training.record import RunRecord
from dyhead_det.training.run import Run, build_run, restore
from dyhead_det.training.run_folder import held_folder, load_last
from dyhead_det.training.saving import (
    is_save_due,
    keep_epoch,
    require_saved,
    save_best,
    save_last,
)
from dyhead_det.training.step import train_step

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
        _tell_start(run)
        was_finished = run.is_finished
        if not was_finished:
            with explained_out_of_memory(config, device, run.kept):
                _run_to_the_end(run)
    result_path = run.best_path if run.best else run.last_path
    return TrainResult(run.step, run.best, result_path, was_finished)


def _checkpoint_to_go_on_from(out: Path, *, resume: bool) -> Checkpoint | None:
    checkpoint = load_last(out)
    if checkpoint is not None and not resume:
        msg = f"{out}: holds a run; go on with it by --resume, or give another folder by --out"
        raise ConfigError(msg)
    return checkpoint


@main_only
def _prepare_folder(run: Run, *, is_new: bool) -> None:
    if is_new:
        run.metrics_path.unlink(missing_ok=True)
    with written_whole(run.out / "config.yaml") as unfinished:
        unfinished.write_text(to_yaml(run.config), encoding="utf-8")


def _tell_start(run: Run) -> None:
    num_val = 0 if run.val_data is None else len(run.val_data)
    logger.info(
        "%s on %s%s: %d images to train on, %d to validate on, %d classes; steps %d to %d of %d "
        "an epoch -> %s",
        run.config.model.detector.name,
        run.device.type,
        f" in {get_world_size()} processes" if get_world_size() > 1 else "",
        len(run.train_data),
        num_val,
        len(run.train_data.categories),
        run.step,
        run.num_steps,
        run.steps_per_epoch,
        run.out,
    )


def _run_to_the_end(run: Run) -> None:
    """Train and evaluate in turn until the last step; save on the way and when stopped."""
    progress = TrainProgress(
        first_step=run.step,
        num_steps=run.num_steps,
        device=run.device,
        stopwatch=run.stopwatch,
    )
    run.ddp_model = wrap_ddp(run.detector)
    loader = training_loader(run.config, run.train_data, run.device)
    with StopSignals() as stop, progress, RunRecord(run, progress) as record:
        try:
            while True:
                # First, since a run may have been stopped while evaluating.
                if run.val_data is not None and _is_evaluation_due(run):
                    save_last(run)
                    with run.stopwatch.part(EVALUATION):
                        _evaluate(run, run.val_data, stop, record)
                    save_last(run)
                keep_epoch(run)
                if run.is_over:
                    break
                _train_one_epoch(run, loader, stop, progress, record)
            save_last(run)
        except StopRequested as request:
            save_last(run)
            msg = (
                f"stopped by {request} after step {run.step} of {run.num_steps}; {run.kept()}; "
                "go on with --resume"
            )
            raise StoppedError(msg, signal_number=request.signal_number) from request
        except LostProcessError:  # met between two steps or two batches, where the state is whole
            save_last(run)
            raise
        except (DatasetError, WorkerDiedError) as error:  # they come instead of a batch
            save_last(run)
            raise type(error)(f"{error}; {run.kept()}; go on with --resume") from error
    require_saved(run)


def _train_one_epoch(
    run: Run,
    loader: DetectionLoader,
    stop: StopSignals,
    progress: TrainProgress,
    record: RunRecord,
) -> None:
    """Train from the current step to the end of its epoch, or of the run."""
    epoch, start_step = divmod(run.step, run.steps_per_epoch)
    loader.set_epoch(epoch, start_step=start_step)
    run.detector.train()
    watched = stop.watch(loader)
    for images, targets in run.stopwatch.waits(LOADING, watched):
        if run.step == 0 and images:
            record.draw_next_batch(targets)
        with run.stopwatch.part(STEPS):
            lr, loss = train_step(run, images, targets)
        # Steps without a readable image are left out, but counted.
        run.step = min(epoch * run.steps_per_epoch + loader.position, run.num_steps)
        progress.advance(run.step, num_images=watched.num_images, loss=loss, lr=lr)
        if run.step % run.config.train.log_every_steps == 0 or run.step == run.num_steps:
            _log_losses(run, progress, record, lr)
        if run.step == run.num_steps:
            return
        if is_save_due(run):
            save_last(run)
    run.step = min((epoch + 1) * run.steps_per_epoch, run.num_steps)


def _log_losses(run: Run, progress: TrainProgress, record: RunRecord, lr: float) -> None:
    """Write the means of losses and gradient norm since the last row, and start anew."""
    means = {name: value / run.num_summed for name, value in run.sums.items()}
    values = {
        "loss": sum(mean for name, mean in means.items() if name.startswith("loss")),
        **means,
        "lr": lr,
        "images_per_second": progress.images_per_second(),
        "data_share": progress.data_share(),
        "memory_gib": memory_gib(run.device),
    }
    record.add({"step": run.step, "epoch": run.epoch, **values})
    progress.log(values)
    run.sums, run.num_summed = {}, 0


def _is_evaluation_due(run: Run) -> bool:
    """Evaluate at the end of every N-th epoch and at the end of the run, once."""
    if run.evaluated_step == run.step:
        return False
    period = run.steps_per_epoch * run.config.train.eval_every_epochs
    return run.step % period == 0 or run.step == run.num_steps


def _evaluate(run: Run, data: CocoDataset, stop: StopSignals, record: RunRecord) -> None:
    """Score the detector on the validation data; keep the checkpoint if it is the best."""
    config = run.config.train
    result, detections = _score(run, run.tested_detector, data, stop)
    raw = None
    if config.ema is not None and config.ema.evaluate_raw:
        raw, _ = _score(run, run.detector, data, stop)
    run.metrics = result.metrics
    is_best = not run.best or result.ap > (run.best["AP"] or 0.0)
    # Only what can be read again counts as the best.
    if is_best and broadcast_object(lambda: save_best(run)):
        run.best = {"step": run.step, **result.metrics}
    run.evaluated_step = run.step
    logger.info(
        "step %d, epoch %.4g: AP %.3f, AP50 %.3f%s",
        run.step,
        run.epoch,
        result.ap,
        result.metrics["AP50"] or 0.0,
        " (best)" if is_best else "",
    )
    record.evaluated(result, detections, is_best=is_best, raw=raw)
    if run.early_stopping is not None:
        run.early_stopping.note(result.ap)
        if run.early_stopping.is_over:
            logger.info(
                "train.early_stopping: AP has not risen by more than %g in %d evaluations",
                run.early_stopping.min_delta,
                run.early_stopping.patience,
            )


def _score(
    run: Run, detector: Detector, data: CocoDataset, stop: StopSignals
) -> tuple[EvalResult, list[CocoResult]]:
    loader = evaluation_loader(
        run.config.data, data, run.device, batch_size=run.config.eval.batch_size
    )
    return evaluate_detector(
        detector,
        stop.watch(loader),
        ground_truth=data.ground_truth(),
        categories=run.train_data.categories,
        device=run.device,
        backend=run.config.eval.backend,
        max_detections=run.config.eval.max_detections,
        detections_per_image=run.config.model.detector.detections_per_img,
        progress=True,
    )
