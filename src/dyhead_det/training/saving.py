"""When a run is saved, and what becomes of it when that fails."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dyhead_det.checkpoints.checkpoint import save_checkpoint
from dyhead_det.distributed.rank_zero import main_only
from dyhead_det.errors import TrainingError
from dyhead_det.files import link_or_copy
from dyhead_det.reporting.stopwatch import SAVING
from dyhead_det.training.resume import capture
from dyhead_det.training.run import Run
from dyhead_det.training.run_folder import BEST, LAST, PREVIOUS

logger = logging.getLogger(__name__)


def is_save_due(run: Run) -> bool:
    """Save after every so many steps, epochs or minutes, whichever comes first."""
    train = run.parts.config.train
    periods = [
        train.save_every_steps,
        (train.save_every_epochs or 0) * run.parts.steps_per_epoch,
    ]
    if any(period and run.progress.step % period == 0 for period in periods):
        return True
    minutes = train.save_every_minutes
    return minutes is not None and time.monotonic() - run.saved_at >= 60 * minutes


def save_last(run: Run) -> None:
    """Write all that is needed to go on from here, unless that is written already.

    What cannot be written is a warning: training goes on, and the last good checkpoint stays.
    """
    if run.is_saved:
        return
    with run.parts.stopwatch.part(SAVING), _outlived(run, LAST):
        run.parts.metrics_file.write(durable=True)  # first: a row that is lost would not come again
        save_checkpoint(
            run.parts.last_path, capture(run, with_training=True), previous=run.parts.out / PREVIOUS
        )
        run.mark_saved()
    run.saved_at = time.monotonic()


def keep_epoch(run: Run) -> None:
    """Give the checkpoint of every K-th epoch a name of its own, where it stays."""
    period = (run.parts.config.train.keep_every_epochs or 0) * run.parts.steps_per_epoch
    if not period or run.progress.step == 0 or run.progress.step % period:
        return
    save_last(run)
    if run.is_saved:
        kept_path = run.parts.out / f"epoch_{run.progress.step // run.parts.steps_per_epoch:03d}.pt"
        with _outlived(run, kept_path.name):
            main_only(link_or_copy)(run.parts.last_path, kept_path)


def save_best(run: Run) -> bool:
    """Write what prediction needs; return whether that has become of it."""
    with run.parts.stopwatch.part(SAVING), _outlived(run, BEST):
        save_checkpoint(run.parts.best_path, capture(run, with_training=False))
        return True
    return False


def require_saved(run: Run) -> None:
    """Make sure that a run that has come to its end is not lost.

    Raises:
        TrainingError: If the last attempt to save it has failed.
    """
    if run.is_saved:
        return
    msg = (
        f"trained to the end, step {run.progress.step}, but not saved, see the warnings above; "
        f"{run.saved_summary()}; make room and go on with --resume"
    )
    raise TrainingError(msg)


@contextmanager
def _outlived(run: Run, name: str) -> Iterator[None]:
    """Turn a file that cannot be written into a warning: a full disk must not end a run."""
    try:
        yield
    except OSError as error:
        logger.warning(
            "step %d: %s could not be written (%s), training goes on; %s",
            run.progress.step,
            run.parts.out / name,
            error.strerror or error,
            run.saved_summary(),
        )
