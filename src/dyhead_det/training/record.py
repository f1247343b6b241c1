"""Record of a run for people: numbers, curves, pictures and a report.

Checkpoints are not among it. Nothing here can end a run: what cannot be drawn or written is a
warning. Only metrics.jsonl is left to its caller, since a resumed run builds on it.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from PIL import Image

from dyhead_det.config.file import to_yaml
from dyhead_det.config.schema import to_plain
from dyhead_det.contracts import Target
from dyhead_det.data.statistics import DataStatistics, count
from dyhead_det.distributed.device import images_to_device
from dyhead_det.distributed.rank_zero import main_only
from dyhead_det.distributed.world import is_main
from dyhead_det.evaluation.coco_scores import EvalResult
from dyhead_det.evaluation.ground_truth import CocoResult
from dyhead_det.files import written_whole
from dyhead_det.reporting.dyhead_statistics import dyhead_metrics
from dyhead_det.reporting.environment import describe_environment, num_cores
from dyhead_det.reporting.loading_advice import loading_advice
from dyhead_det.reporting.metrics_csv import write_csv
from dyhead_det.reporting.metrics_file import Row, evaluation_row, read_rows
from dyhead_det.reporting.pictures import (
    ModelInput,
    call_with_next_batch,
    draw_batch,
    draw_validation,
    readable_images,
)
from dyhead_det.reporting.progress import TrainProgress, memory_gib
from dyhead_det.reporting.report import RunFacts, Timing, write_run_report
from dyhead_det.reporting.stopwatch import LOADING, REPORTING, STEPS
from dyhead_det.reporting.trackers import Tracker, open_tracker, require_trackers
from dyhead_det.training.run import Run
from dyhead_det.training.run_folder import REPORT
from dyhead_det.visualize.part_curves import plot_part_curves
from dyhead_det.visualize.plots import plot_curves

logger = logging.getLogger(__name__)

PICTURES = ("curves.png", "parts.png", "first_batch.png", "validation.png")


@contextmanager
def recorded(run: Run, progress: TrainProgress) -> Iterator["RunRecord"]:
    """Record a run while a block trains it, and its end, however it comes.

    Raises:
        ConfigError: If a tracker is asked for and not installed.
    """
    record = RunRecord(run, progress)
    try:
        yield record
    except Exception as error:  # not for a second Ctrl-C, which does not wait
        record.close(f"Ended: {error}", is_finished=False)
        raise
    record.close(
        f"Finished after {run.progress.step} of {run.parts.num_steps} steps.", is_finished=True
    )


class RunRecord:
    """Writes the numbers of a run as they come, and the rest at every evaluation and at the end."""

    def __init__(self, run: Run, progress: TrainProgress) -> None:
        """Begin, with what metrics.jsonl holds already.

        Raises:
            ConfigError: if a tracker is asked for and not installed.
        """
        self._run = run
        self._progress = progress
        self._first_step = run.progress.step
        self._has_advised = False
        self._num_loss_rows = 0
        self._notes: tuple[str, ...] = ()  # of the last evaluation
        self._num_plotted_rows = 0
        self._trackers: dict[str, Tracker] = {}
        names = dict.fromkeys(run.parts.config.train.trackers)
        require_trackers(names)
        for name in names if is_main() else ():
            with self._spared(name):
                self._trackers[name] = open_tracker(
                    name,
                    run.parts.out,
                    read_rows(run.parts.metrics_path),
                    to_plain(run.parts.config),
                )
        # The code that runs is that of now, not that of the end of the run.
        self._environment = describe_environment(run.parts.device)

    def close(self, state: str, *, is_finished: bool) -> None:
        """Write the overview a last time, with what has become of the run."""
        self._write_overview(state)
        for name, tracker in self._trackers.items():
            with self._spared(name):
                tracker.close(is_finished=is_finished)

    @main_only
    def draw_next_batch(self, targets: Sequence[Target]) -> None:
        """Draw the batch of these targets as soon as the detector has resized and padded it."""
        run = self._run

        def draw(batch: ModelInput) -> None:
            with self._spared("first_batch.png"):
                ids = [target["image_id"] for target in targets]
                rows = [int(np.flatnonzero(run.parts.train_data.image_ids == i)[0]) for i in ids]
                names = [str(run.parts.train_data.file_names[row]) for row in rows]
                self._save(
                    draw_batch(
                        run.parts.detector.transform,
                        batch,
                        names,
                        run.parts.train_data.categories.names,
                        first_label=run.parts.detector.first_label,
                    ),
                    "first_batch.png",
                )

        call_with_next_batch(run.parts.detector, draw)

    @main_only
    def add(self, row: Row) -> None:
        """Add losses or COCO numbers to metrics.jsonl, and to the trackers that are asked for."""
        self._run.parts.metrics_file.append(row)
        trackers, self._trackers = self._trackers, {}
        for name, tracker in trackers.items():
            with self._spared(name):  # one warning is enough: who fails is left out from now on
                tracker.add(row)
                self._trackers[name] = tracker
        if "data_share" in row:
            self._num_loss_rows += 1
            self._advise(row["data_share"] or 0.0)

    @main_only
    def evaluated(
        self,
        result: EvalResult,
        detections: Sequence[CocoResult],
        *,
        is_best: bool,
        raw: EvalResult | None = None,
    ) -> None:
        """Write down the numbers of an evaluation, of each class too; draw what the best finds.

        Args:
            result: Of the detector, or of the average of its weights.
            detections: Of the same.
            is_best: Whether none was better before.
            raw: With an average, of the weights that are trained, if they were evaluated.
        """
        run = self._run
        row = {**evaluation_row(result, raw), **self._dyhead_metrics()}
        self.add({"step": run.progress.step, "epoch": run.epoch, **row})
        for note in result.notes:
            if note not in self._notes:
                logger.warning("data.val: %s", note)
        self._notes = result.notes
        if is_best and run.parts.val_data is not None:
            with self._spared("validation.png"):
                picture = draw_validation(run.parts.val_data, detections)
                if picture is not None:
                    self._save(picture, "validation.png")
        self._write_overview(
            f"Going on: {run.progress.step} of {run.parts.num_steps} steps are done."
        )

    def _dyhead_metrics(self) -> Row:
        """Measure the DyHead that was evaluated, on one validation image."""
        parts = self._run.parts
        if parts.val_data is not None:
            with self._spared("the statistics of DyHead"):
                for _, image in readable_images(parts.val_data, range(len(parts.val_data))):
                    images = images_to_device([image], parts.device)
                    return {**dyhead_metrics(parts.evaluated_detector, images)}
        return {}

    @main_only
    def _write_overview(self, state: str) -> None:
        out, rows = self._run.parts.out, read_rows(self._run.parts.metrics_path)
        with self._spared("metrics.csv"):
            write_csv(rows, out / "metrics.csv")
        if len(rows) != self._num_plotted_rows:
            with self._spared("curves.png"):
                plot_curves(rows, out / "curves.png")
                plot_part_curves(rows, out / "parts.png")
                self._num_plotted_rows = len(rows)
        with self._spared(REPORT):
            write_run_report(out / REPORT, self._facts(state, rows))

    def _facts(self, state: str, rows: Sequence[Row]) -> RunFacts:
        run = self._run
        best_step = run.progress.best.get("step")
        return RunFacts(
            name=run.parts.out.resolve().name,
            state=state,
            rows=rows,
            best_step=None if best_step is None else int(best_step),
            notes=self._notes,
            data=self._statistics(),
            timing=self._timing(),
            environment=self._environment,
            pictures=[name for name in PICTURES if (run.parts.out / name).is_file()],
            config=to_yaml(run.parts.config),
        )

    def _statistics(self) -> dict[str, DataStatistics]:
        run = self._run
        parts = {"train": run.parts.train_data, "val": run.parts.val_data}
        return {name: count(data) for name, data in parts.items() if data is not None}

    def _timing(self) -> Timing:
        seconds = self._run.parts.stopwatch.seconds()
        waited, trained = seconds.get(LOADING, 0.0), seconds.get(STEPS, 0.0)
        return Timing(
            first_step=self._first_step,
            last_step=self._run.progress.step,
            seconds=seconds,
            num_images=self._progress.num_images,
            memory_gib=memory_gib(self._run.parts.device),
            advice=self._advice(waited / max(waited + trained, 1e-9)),
        )

    def _advise(self, data_share: float) -> None:
        """Warn once of slow data; the first numbers do not count, workers were being started."""
        if self._has_advised or self._num_loss_rows < 2:
            return
        advice = self._advice(data_share)
        if advice is not None:
            self._has_advised = True
            logger.warning("%s", advice)

    def _advice(self, data_share: float) -> str | None:
        config = self._run.parts.config
        seen = config.model.input.short_edge * config.model.input.long_edge
        return loading_advice(
            share=data_share,
            num_workers=config.data.num_workers,
            num_cores=num_cores(),
            pixel_ratio=float(np.median(self._run.parts.train_data.sizes_wh.prod(axis=1))) / seen,
            is_photometric=config.data.augment.photometric,
        )

    def _save(self, picture: Image.Image, name: str) -> None:
        with written_whole(self._run.parts.out / name) as unfinished:
            picture.save(unfinished, format="PNG")

    @contextmanager
    def _spared(self, name: str) -> Iterator[None]:
        """Turn every error of the block into a warning: hours of training outweigh a picture."""
        with self._run.parts.stopwatch.part(REPORTING):
            try:
                yield
            except Exception as error:  # noqa: BLE001 - see above
                logger.warning(
                    "%s could not be written, the run goes on: %s: %s",
                    self._run.parts.out / name,
                    type(error).__name__,
                    error,
                )
