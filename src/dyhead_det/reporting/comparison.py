"""Detectors beside each other: one table, one plot, and how sure a difference is."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from dyhead_det.errors import DatasetError
from dyhead_det.evaluation.bootstrap import (
    average_precisions,
    interval,
    match_detections,
    resample_images,
    resampled_ap,
)
from dyhead_det.evaluation.coco_scores import decimal
from dyhead_det.evaluation.evaluate import write_json
from dyhead_det.evaluation.results_file import load_results
from dyhead_det.reporting.page.page import Table
from dyhead_det.reporting.scored import EQUAL_AP, ScoredDetector
from dyhead_det.tables import text_table, write_csv
from dyhead_det.visualize.comparison_plot import plot_comparison
from dyhead_det.visualize.evaluation_plots import save_png

logger = logging.getLogger(__name__)

COMPARE_FILES = ("compare.png", "compare.csv", "compare_classes.csv", "compare.json")
_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_MOST_CLASSES = 30
_SEED = 0


@dataclass(frozen=True, slots=True)
class Difference:
    """AP less that of the first detector, over the same images.

    low, high: the 95 % interval of a paired bootstrap over the images.
    """

    value: float
    low: float
    high: float

    def text(self) -> str:
        """Return it with its interval."""
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Detectors, and the difference of each from the first; None where it has no interval."""

    scored: Sequence[ScoredDetector]
    differences: Sequence[Difference | None]

    def table(self) -> Table:
        """Return a line for each detector."""
        return Table(
            ("", "detector", *_METRICS, "difference of AP, 95 %"),
            [
                (
                    number,
                    each.name,
                    *(decimal(each.metrics.get(metric)) for metric in _METRICS),
                    "-" if difference is None else difference.text(),
                )
                for number, (each, difference) in enumerate(
                    zip(self.scored, self.differences, strict=True), start=1
                )
            ],
        )

    def class_table(self) -> Table:
        """Return AP of each class; of many classes those that differ most."""
        names = sorted(
            dict.fromkeys(name for each in self.scored for name in each.classes),
            key=lambda name: -self._spread(name),
        )[:_MOST_CLASSES]
        return Table(
            ("AP of class", *(f"{number}" for number, _ in enumerate(self.scored, start=1))),
            [(name, *(decimal(each.classes.get(name)) for each in self.scored)) for name in names],
        )

    def text(self) -> str:
        """Return both tables for a terminal."""
        return "\n\n".join(text_table(*table) for table in (self.table(), self.class_table()))

    def write(self, folder: Path) -> None:
        """Write the files of `COMPARE_FILES`, each whole or not at all."""
        picture_path, table_path, classes_path, json_path = (
            folder / name for name in COMPARE_FILES
        )
        plain = [
            {
                "name": each.name,
                "metrics": dict(each.metrics),
                "classes": dict(each.classes),
                "difference": None if difference is None else asdict(difference),
            }
            for each, difference in zip(self.scored, self.differences, strict=True)
        ]
        write_json(json_path, plain, indent=2)
        write_csv(table_path, *self.table())
        write_csv(classes_path, *self.class_table())
        classes = [str(row[0]) for row in self.class_table().rows]
        figure = plot_comparison(
            names=[each.name for each in self.scored],
            curves=[each.curve for each in self.scored],
            totals=[each.metrics.get("AP") for each in self.scored],
            classes=[[each.classes.get(name) for name in classes] for each in self.scored],
            class_names=classes,
        )
        save_png(figure, picture_path)

    def _spread(self, name: str) -> float:
        values = [each.classes.get(name) or 0.0 for each in self.scored]
        return max(values) - min(values)


def compare(scored: Sequence[ScoredDetector], *, num_resamples: int) -> Comparison:
    """Compare detectors that were scored on the same data, each with the first.

    Args:
        scored: At least one.
        num_resamples: Of the bootstrap; 0 for none.

    Raises:
        DatasetError: Where they were scored on different data.
    """
    _require_same_data(scored)
    differences = [
        _difference(scored[0], other, num_resamples) if number and num_resamples else None
        for number, other in enumerate(scored)
    ]
    return Comparison(scored, differences)


def _require_same_data(scored: Sequence[ScoredDetector]) -> None:
    known = [each for each in scored if each.data is not None]
    unknown = [each.name for each in scored if each.data is None]
    if unknown and len(scored) > 1:
        logger.warning(
            "%s: written by an older version, which does not tell what it was scored on", unknown[0]
        )
    for each in known[1:]:
        if each.data != known[0].data or not (set(each.classes) & set(known[0].classes)):
            raise DatasetError(
                f"scored on different data, which cannot be compared: {_described(known[0])}; "
                f"{_described(each)}; score both on the same by `eval --data`"
            )


def _described(scored: ScoredDetector) -> str:
    num_images, num_boxes = scored.data or (0, 0)
    return f"{scored.name} on {num_images} images with {num_boxes} objects"


def _difference(
    first: ScoredDetector, other: ScoredDetector, num_resamples: int
) -> Difference | None:
    """Resample the images; None, with a line that says why, where that is not possible."""
    for each in (first, other):
        if each.detections is None or each.annotations is None:
            what = "detections" if each.detections is None else "annotations; give them by --data"
            logger.info("%s: no interval of the difference, it has no %s", each.name, what)
            return None
    if not first.annotations or not _is_same_file(first.annotations, other.annotations):
        logger.warning(
            "no interval: %s and %s name different annotations; give them by --data",
            first.name,
            other.name,
        )
        return None
    if first.annotations.suffix.lower() != ".json":
        logger.info("%s: no interval of the difference, it is no COCO file", first.annotations)
        return None
    matches = []
    for each in (first, other):
        data = load_results(each.detections, each.annotations)  # type: ignore[arg-type]  # see above
        classes = match_detections(data.ground_truth, data.detections)
        num_images = len(data.ground_truth["images"])
        ap = average_precisions(classes, np.ones((1, num_images), np.int64)).mean()
        if abs(ap - (each.metrics.get("AP") or 0.0)) > EQUAL_AP:  # a share of it, other classes, ..
            logger.warning(
                "no interval: %s was scored on other images or classes than those of %s",
                each.name,
                each.annotations,
            )
            return None
        matches.append(classes)
    counts = resample_images(num_images, num_resamples, seed=_SEED)
    one, two = (resampled_ap(classes, counts) for classes in matches)
    low, high = interval(two - one)
    value = (other.metrics.get("AP") or 0.0) - (first.metrics.get("AP") or 0.0)
    return Difference(value, low, high)


def _is_same_file(one: Path, other: Path | None) -> bool:
    """Return whether two annotation files hold the same."""
    if other is None:
        return False
    try:
        return one.resolve() == other.resolve() or one.read_bytes() == other.read_bytes()
    except OSError as error:
        raise DatasetError(
            f"{error.filename}: the annotations of an evaluation cannot be read "
            f"({error.strerror}); say by --data where they are"
        ) from error
