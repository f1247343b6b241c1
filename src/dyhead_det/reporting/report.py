"""report.html: one page with results, pictures, data, timing, environment, configuration of a run.

The page is made of plain values, so that it reads the same for a run that goes on, has ended, was
stopped or was resumed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from dyhead_det.data.statistics import DataStatistics
from dyhead_det.evaluation.coco_scores import decimal, metric_names
from dyhead_det.evaluation.matching import MAX_DETECTIONS
from dyhead_det.reporting.metrics_file import Row
from dyhead_det.reporting.page.page import Table, embedded, embedded_png, write_page
from dyhead_det.reporting.progress import format_duration
from dyhead_det.reporting.stopwatch import LOADING, STEPS

_PICTURES = {
    "curves.png": "Curves",
    "parts.png": "Gradients, steps and clipping of the detector's parts",
    "first_batch.png": "The first batch of training, as the detector got it",
    "validation.png": "Annotated and detected objects of the best evaluation",
}
# They are made smaller for the page, which is written after every evaluation.
_PHOTOGRAPHS = ("first_batch.png", "validation.png")
_LONGEST_EDGE = 1600


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time went since the program was started, which may be in the midst of a run.

    seconds: of each part, longest first.
    num_images: trained on in that time.
    memory_gib: the most that was used.
    """

    first_step: int
    last_step: int
    seconds: Mapping[str, float]
    num_images: int
    memory_gib: float
    advice: str | None


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The contents of a report.

    state: how far the run is, or how it ended.
    rows: of metrics.jsonl.
    best_step: step of the best evaluation, None before the first.
    notes: what limits the numbers of the last evaluation.
    data: statistics by part of the data set: train, val.
    pictures: names of the picture files that there are.
    config: as YAML.
    """

    name: str
    state: str
    rows: Sequence[Row]
    best_step: int | None
    notes: Sequence[str]
    data: Mapping[str, DataStatistics]
    timing: Timing
    environment: Mapping[str, str]
    pictures: Sequence[str]
    config: str


def write_run_report(path: Path, facts: RunFacts) -> None:
    """Write the report as one page that needs nothing else.

    Args:
        path: of the page, beside the pictures that it takes in.
        facts: what it tells.
    """
    pictures = {
        title: _picture(path.parent / name)
        for name, title in _PICTURES.items()
        if name in facts.pictures
    }
    values = {
        "title": facts.name,
        "state": facts.state,
        "notes": _notes(facts),
        "results": _results(facts),
        "pictures": pictures,
        "data": _data(facts.data),
        "timing": facts.timing,
        "parts": _parts(facts.timing),
        "images_per_second": facts.timing.num_images / max(_training_seconds(facts.timing), 1e-9),
        "environment": Table(("what", "which"), list(facts.environment.items())),
        "config": facts.config.strip(),
    }
    write_page(path, "run", values)


def _picture(path: Path) -> str:
    if path.name not in _PHOTOGRAPHS:
        return embedded_png(path)
    with Image.open(path) as picture:
        return embedded(picture, longer_edge=_LONGEST_EDGE)


def _results(facts: RunFacts) -> list[Table]:
    """Return the COCO numbers of the best and the last evaluation, and AP of each class."""
    evaluations = {f"step {row['step']}": row for row in facts.rows if "AP" in row}
    if not evaluations:
        return []
    shown = {name: row for name, row in evaluations.items() if row["step"] == facts.best_step}
    shown = {f"best, {name}": row for name, row in shown.items()}
    last_name, last = list(evaluations.items())[-1]
    if last["step"] != facts.best_step:
        shown[f"last, {last_name}"] = last
    metrics = metric_names(_max_detections(last))
    numbers = [
        (name, *(decimal(row.get(metric)) for metric in metrics)) for name, row in shown.items()
    ]
    of_classes = [
        (
            name,
            facts.data["train"].objects_of_class.get(name, 0),
            facts.data["val"].objects_of_class.get(name, 0),
            *(decimal(row.get(f"AP/{name}")) for row in shown.values()),
        )
        for name in facts.data["train"].objects_of_class
    ]
    header = ("class", "to train on", "to evaluate on", *(f"AP {name}" for name in shown))
    return [Table(("", *metrics), numbers), Table(header, of_classes)]


def _notes(facts: RunFacts) -> Sequence[str]:
    """Return what limits the numbers of the last evaluation."""
    last = next((row for row in reversed(facts.rows) if "AP" in row), None)
    num_unreadable = None if last is None else last.get("num_unreadable_images")
    if num_unreadable and not facts.notes:  # evaluated before the run was resumed
        return [f"{num_unreadable} images could not be read and are not scored"]
    return facts.notes


def _max_detections(row: Row) -> int:
    """Return N of the metric AR<N>, which is 100 unless the configuration has another limit."""
    limits = [int(name[2:]) for name in row if name.startswith("AR") and name[2:].isdigit()]
    return max((limit for limit in limits if limit > 10), default=MAX_DETECTIONS)


def _data(data: Mapping[str, DataStatistics]) -> Table:
    """Return a table of counts, one column for each part of the data set."""
    lines: dict[str, list[object]] = {
        "images": [part.num_images for part in data.values()],
        "images without an object": [part.num_empty for part in data.values()],
        "objects": [part.num_objects for part in data.values()],
        "objects in an image, mean": [
            f"{part.num_objects / part.num_images:.1f}" for part in data.values()
        ],
        "objects in an image, most": [part.most_objects for part in data.values()],
        "small objects (below 32 x 32)": [_of(part.small, part) for part in data.values()],
        "medium objects": [_of(part.medium, part) for part in data.values()],
        "large objects (from 96 x 96)": [_of(part.large, part) for part in data.values()],
        "crowd regions": [part.num_crowds for part in data.values()],
        **{
            f"image size, {which}": [_size(part.image_sizes[position]) for part in data.values()]
            for position, which in enumerate(("least", "middle", "greatest"))
        },
    }
    return Table(("", *data), [[name, *values] for name, values in lines.items()])


def _parts(timing: Timing) -> Table:
    """Return the parts of the run by their time."""
    total = sum(timing.seconds.values())
    parts = [
        (name, format_duration(seconds), f"{seconds:.1f}", f"{seconds / max(total, 1e-9):.1%}")
        for name, seconds in timing.seconds.items()
    ]
    return Table(("part", "time", "seconds", "share"), parts)


def _training_seconds(timing: Timing) -> float:
    return timing.seconds.get(LOADING, 0.0) + timing.seconds.get(STEPS, 0.0)


def _of(number: int, part: DataStatistics) -> str:
    return f"{number} ({number / max(part.num_objects, 1):.0%})"


def _size(size_wh: tuple[int, int]) -> str:
    return f"{size_wh[0]} x {size_wh[1]}"
