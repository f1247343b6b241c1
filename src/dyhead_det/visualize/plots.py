"""Curves of a training run: losses, COCO numbers, learning rate over the steps."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dyhead_det.files import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, float | int | None]
# Step and value of each point.
Curve = tuple[list[float], list[float]]

SCORES = ("AP", "AP50", "AP75")


def plot_curves(rows: Sequence[Row], path: Path) -> None:
    """Draw what `metrics.jsonl` holds; without any number nothing is written.

    Args:
        rows: `step` and losses (`loss`, `loss_*`) with `lr`, or `step` and COCO numbers.
        path: the PNG to write, completely or not at all.
    """
    # Imported here because it takes half a second; without pyplot, whose state belongs to the
    # program that calls.
    from matplotlib.figure import Figure  # noqa: PLC0415

    panels = {
        title: curves
        for title, names in (
            ("loss", _loss_names(rows)),
            ("average precision", SCORES),
            ("learning rate", ("lr",)),
        )
        if (curves := _curves(rows, names))
    }
    if not panels:
        return
    figure = Figure(figsize=(8, 3 * len(panels)), layout="constrained")
    all_axes = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    for axes, (title, curves) in zip(all_axes, panels.items(), strict=True):
        _draw_panel(axes, title, curves)
    all_axes[-1].set_xlabel("step")
    with written_whole(path) as unfinished:
        figure.savefig(unfinished, format="png")


def _draw_panel(axes: "Axes", title: str, curves: Mapping[str, Curve]) -> None:
    """Draw the curves of one unit; the first, which is the sum or the main number, is thicker."""
    for i, (name, (steps, values)) in enumerate(curves.items()):
        # A single point makes no line.
        marker = "o" if len(steps) < 20 else None
        axes.plot(steps, values, label=name, linewidth=1.2 if i else 2.2, marker=marker, ms=3)
    axes.set_title(title, loc="left", fontsize=10)
    axes.grid(alpha=0.3)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    if len(curves) > 1:
        axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def _loss_names(rows: Iterable[Row]) -> tuple[str, ...]:
    """Return `loss`, their sum, before its parts."""
    parts = {name for row in rows for name in row if name.startswith("loss_")}
    return ("loss", *sorted(parts))


def _curves(rows: Iterable[Row], names: Sequence[str]) -> dict[str, Curve]:
    """Gather the points of each name that has any."""
    points: dict[str, Curve] = {name: ([], []) for name in names}
    for row in rows:
        step = row.get("step")
        for name in names:
            value = row.get(name)
            if step is not None and value is not None:
                points[name][0].append(step)
                points[name][1].append(value)
    return {name: curve for name, curve in points.items() if curve[0]}
