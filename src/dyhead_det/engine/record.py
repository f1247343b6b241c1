"""What a run leaves behind for people: numbers, curves, pictures and a report.

Checkpoints are not among it. Nothing here can end a run: what cannot be written is a warning.
"""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType

from dyhead_det.engine.coco_scores import EvalResult
from dyhead_det.engine.metrics_csv import write_csv
from dyhead_det.engine.metrics_file import Row, append_row, read_rows
from dyhead_det.engine.progress import TrainProgress
from dyhead_det.engine.run import Run
from dyhead_det.engine.stopwatch import REPORTING
from dyhead_det.visualize.plots import plot_curves

logger = logging.getLogger(__name__)


class RunRecord(AbstractContextManager["RunRecord"]):
    """Writes the numbers of a run as they come, and the rest at every evaluation and at the end."""

    def __init__(self, run: Run, progress: TrainProgress) -> None:
        self._run = run
        self._progress = progress

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None or isinstance(error, Exception):  # a second Ctrl-C must not wait for this
            self._write_overview()

    def add(self, row: Row) -> None:
        """Add losses or COCO numbers to metrics.jsonl."""
        append_row(self._run.metrics_path, row)

    def evaluated(self, result: EvalResult) -> None:
        """Write down the numbers of an evaluation, of each class too."""
        of_classes = {f"AP/{line.name}": line.AP for line in result.classes}
        run = self._run
        self.add({"step": run.step, "epoch": run.epoch, **result.metrics, **of_classes})
        self._write_overview()

    def _write_overview(self) -> None:
        out, rows = self._run.out, read_rows(self._run.metrics_path)
        with self._spared("metrics.csv"):
            write_csv(rows, out / "metrics.csv")
        with self._spared("curves.png"):
            plot_curves(rows, out / "curves.png")

    @contextmanager
    def _spared(self, name: str) -> Iterator[None]:
        """Turn every error of the block into a warning: hours of training outweigh a picture."""
        with self._run.stopwatch.part(REPORTING):
            try:
                yield
            except Exception as error:  # noqa: BLE001 - see above
                logger.warning(
                    "%s could not be written, the run goes on: %s: %s",
                    self._run.out / name,
                    type(error).__name__,
                    error,
                )
