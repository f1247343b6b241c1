"""The rows of an ablation as markdown, as csv and as a picture."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from dyhead_det.files import written_whole
from dyhead_det.tables import markdown_table
from grid_runs import SCORES, Measured


@dataclass(frozen=True)
class Variant:
    """One row of the grid: its name on the command line, what it asks, and how it says so."""

    name: str
    group: str
    label: str
    overrides: tuple[str, ...]


def markdown(rows: Mapping[Variant, Measured], run_of: Mapping[str, str]) -> list[str]:
    """Format the table; a row that shares its run says whose."""
    header = (
        *("row", "what", "AP", "AP50", "AP small", "AP medium", "AP large"),
        *("million parameters", "GMACs", "seconds per step"),
    )
    lines = []
    for variant, measured in rows.items():
        run = run_of[variant.name]
        what = variant.label if run == variant.name else f"{variant.label} (= {run})"
        cells = [
            variant.name,
            what,
            *("-" if score is None else f"{score:.3f}" for score in measured.scores.values()),
            f"{measured.num_parameters / 1e6:.2f}",
            f"{measured.gmacs:.2f}",
            f"{measured.seconds_per_step:.2f}",
        ]
        lines.append(cells)
    return markdown_table(header, lines, escape=str).splitlines()


def write_csv(path: Path, rows: Mapping[Variant, Measured], run_of: Mapping[str, str]) -> None:
    """Write all digits."""
    costs = ("num_parameters", "gmacs", "seconds_per_step")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "group", "what", "run", *SCORES, *costs])
        for variant, measured in rows.items():
            head = [variant.name, variant.group, variant.label, run_of[variant.name]]
            values = [*measured.scores.values(), *(getattr(measured, name) for name in costs)]
            writer.writerow([*head, *values])


def draw(path: Path, runs: Mapping[Variant, Measured], *, size_hw: tuple[int, int]) -> None:
    """Draw AP against cost, one point per run, each with its name beside it."""
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    colors = {group: f"C{i}" for i, group in enumerate(dict.fromkeys(v.group for v in runs))}
    labels = []
    for variant, measured in runs.items():
        place, color = (measured.gmacs, measured.scores["AP"] or 0.0), colors[variant.group]
        axes.plot(*place, "o", color=color)
        line = {"arrowstyle": "-", "color": color, "alpha": 0.5, "shrinkA": 0, "shrinkB": 3}
        labels.append(
            axes.annotate(
                variant.label,
                place,
                (0, 0),
                textcoords="offset points",
                color=color,
                arrowprops=line,
            )
        )
    axes.set_xlabel(f"GMACs of the detector for an image of {size_hw[0]} x {size_hw[1]}")
    axes.set_ylabel("AP")
    axes.margins(0.2, 0.12)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.draw_without_rendering()  # from here on all sizes are known
    place_labels(axes, labels)
    with written_whole(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=130)


def place_labels(axes: Axes, labels: Sequence[Annotation]) -> None:
    """Move every label to the nearest place beside its point where nothing is yet."""
    points = [axes.transData.transform(label.xy) for label in labels]
    taken = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in points]
    eighths = (0, 4, 1, 7, 3, 5, 2, 6)  # of a full turn; right and left first
    for label in labels:
        for distance, eighth in product(range(8, 160, 8), eighths):
            across, up = math.cos(eighth * math.pi / 4), math.sin(eighth * math.pi / 4)
            label.set_position((distance * across, distance * up))
            label.set_horizontalalignment(("right", "center", "left")[round(across) + 1])
            label.set_verticalalignment(("top", "center", "bottom")[round(up) + 1])
            box = Text.get_window_extent(label).padded(1)  # the label's own holds the line too
            is_inside = axes.bbox.containsx(box.x0) and axes.bbox.containsx(box.x1)
            if is_inside and not box.count_overlaps(taken):
                break
        taken.append(box)
