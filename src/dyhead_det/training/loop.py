"""The training loop: epochs of steps, evaluated, logged and saved in turn, until the last step."""

import logging
from contextlib import closing

from dyhead_det.data.build_loaders import training_loader
from dyhead_det.data.loaders import DetectionLoader
from dyhead_det.distributed.ddp import wrap_ddp
from dyhead_det.distributed.stopping import StopRequested, StopSignals, graceful_shutdown
from dyhead_det.errors import DatasetError, LostProcessError, StoppedError, WorkerDiedError
from dyhead_det.reporting.progress import TrainProgress, memory_gib
from dyhead_det.reporting.stopwatch import EVALUATION, LOADING, STEPS
from dyhead_det.training.record import RunRecord, recorded
from dyhead_det.training.run import Run
from dyhead_det.training.saving import is_save_due, keep_epoch, require_saved, save_last
from dyhead_det.training.step import train_step
from dyhead_det.training.validation import is_validation_due, validate

logger = logging.getLogger(__name__)


def run_to_the_end(run: Run) -> None:
    """Train and evaluate in turn until the last step; save on the way and when stopped.

    Raises:
        StoppedError: After a signal; the run is saved then.
        TrainingError: If a rank or a worker is lost, or the end cannot be saved.
        DatasetError: If an image cannot be read.
    """
    progress = TrainProgress(
        first_step=run.progress.step,
        num_steps=run.parts.num_steps,
        device=run.parts.device,
        stopwatch=run.parts.stopwatch,
    )
    run.ddp_model = wrap_ddp(run.parts.detector)
    loader = training_loader(
        run.parts.config,
        run.parts.train_data,
        run.parts.device,
        augmentation=run.parts.augmentation,
    )
    with graceful_shutdown() as stop, closing(progress), recorded(run, progress) as record:
        try:
            _alternate(run, loader, stop, progress, record)
            save_last(run)
        except StopRequested as request:
            save_last(run)
            msg = (
                f"stopped by {request} after step {run.progress.step} of {run.parts.num_steps}; "
                f"{run.saved_summary()}; go on with --resume"
            )
            raise StoppedError(msg, signal_number=request.signal_number) from request
        except LostProcessError:  # met between two steps or two batches, where the state is whole
            save_last(run)
            raise
        except (DatasetError, WorkerDiedError) as error:  # they come instead of a batch
            save_last(run)
            raise type(error)(f"{error}; {run.saved_summary()}; go on with --resume") from error
    require_saved(run)


def _alternate(
    run: Run,
    loader: DetectionLoader,
    stop: StopSignals,
    progress: TrainProgress,
    record: RunRecord,
) -> None:
    """Evaluate where that is due, then train for an epoch, until the run is over."""
    while True:
        # First, since a run may have been stopped while evaluating.
        if run.parts.val_data is not None and is_validation_due(run):
            save_last(run)
            with run.parts.stopwatch.part(EVALUATION):
                validate(run, run.parts.val_data, stop, record)
            save_last(run)
        keep_epoch(run)
        if run.is_over:
            return
        _train_one_epoch(run, loader, stop, progress, record)


def _train_one_epoch(
    run: Run,
    loader: DetectionLoader,
    stop: StopSignals,
    progress: TrainProgress,
    record: RunRecord,
) -> None:
    """Train from the current step to the end of its epoch, or of the run."""
    parts, state = run.parts, run.progress
    epoch, start_step = divmod(state.step, parts.steps_per_epoch)
    loader.set_epoch(epoch, start_step=start_step)
    parts.detector.train()
    watched = stop.watch(loader)
    for images, targets in parts.stopwatch.waits(LOADING, watched):
        if state.step == 0 and images:
            record.draw_next_batch(targets)
        with parts.stopwatch.part(STEPS):
            lr, loss = train_step(run, images, targets)
        # Steps without a readable image are left out, but counted.
        state.step = min(epoch * parts.steps_per_epoch + loader.position, parts.num_steps)
        progress.advance(state.step, num_images=watched.num_images, loss=loss, lr=lr)
        is_last = state.step == parts.num_steps
        if state.step % parts.config.train.log_every_steps == 0 or is_last:
            _log_losses(run, progress, record, lr)
        if is_last:
            return
        if is_save_due(run):
            save_last(run)
    state.step = min((epoch + 1) * parts.steps_per_epoch, parts.num_steps)


def _log_losses(run: Run, progress: TrainProgress, record: RunRecord, lr: float) -> None:
    """Write the means of losses and gradient norm since the last row, and start anew."""
    means = run.progress.losses.take_means()
    values = {
        "loss": sum(mean for name, mean in means.items() if name.startswith("loss")),
        **means,
        "lr": lr,
        "images_per_second": progress.images_per_second(),
        "data_share": progress.data_share(),
        "memory_gib": memory_gib(run.parts.device),
    }
    record.add({"step": run.progress.step, "epoch": run.epoch, **values})
    progress.log(values)
