"""Curves of a training run: losses, COCO numbers and learning rate over the epochs."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dyhead_det.files import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, float | int | None]
# Epoch and value of each point.
Curve = tuple[list[float], list[float]]

SCORES = ("AP", "AP50", "AP75", "raw/AP")
# From so many points on, noise hides where a curve goes.
_MANY = 120
_NUM_PIECES = 60


def plot_curves(rows: Sequence[Row], path: Path) -> None:
    """Draw what `metrics.jsonl` holds; without any number nothing is written.

    Args:
        rows: `step`, `epoch` and losses (`loss`, `loss_*`) with `lr`, or COCO numbers.
        path: the PNG to write, completely or not at all.
    """
    # Imported here because it takes half a second; without pyplot, whose state belongs to the
    # program that calls.
    from matplotlib.figure import Figure  # noqa: PLC0415

    panels = {
        title: curves
        for title, names in (
            ("loss", _loss_names(rows)),
            ("average precision on the validation data", SCORES),
            ("learning rate", ("lr",)),
        )
        if (curves := _curves(rows, names))
    }
    if not panels:
        return
    figure = Figure(figsize=(9, 3 * len(panels)), layout="constrained")
    all_axes = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    for axes, (title, curves) in zip(all_axes, panels.items(), strict=True):
        _draw_panel(axes, title, curves)
    all_axes[-1].set_xlabel(_epoch_label(rows))
    with written_whole(path) as unfinished:
        figure.savefig(unfinished, format="png")


def _draw_panel(axes: "Axes", title: str, curves: Mapping[str, Curve]) -> None:
    """Draw the curves of one unit; the first, which is the sum or the main number, is thicker.

    Of many losses the trend is drawn, over a pale line with all of them. The panel is as high as
    the trends: one bad step must not flatten all the others.
    """
    highest = top = max(max(values) for _, values in curves.values())
    for i, (name, (epochs, values)) in enumerate(curves.items()):
        width, color = 1.2 if i else 2.2, f"C{i}"
        # A single point makes no line.
        marker = "o" if len(epochs) < 20 else None
        if name.startswith("loss") and len(epochs) >= _MANY:
            axes.plot(epochs, values, color=color, linewidth=0.8, alpha=0.25)
            epochs, values = _trend((epochs, values))
            top = max(values) if i == 0 else max(top, *values)
        axes.plot(epochs, values, label=name, color=color, linewidth=width, marker=marker, ms=3)
    if "AP" in curves:
        _mark_best(axes, curves["AP"])
    if highest > 1.2 * top:
        axes.set_title(
            f"the highest of single steps, {highest:.3g}, is cut off", loc="right", size=9
        )
    axes.set_title(title, loc="left", size=10)
    axes.grid(alpha=0.3)
    axes.set_ylim(bottom=0, top=1.1 * top or None)
    axes.spines[["top", "right"]].set_visible(False)
    if len(curves) > 1:
        axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def _mark_best(axes: "Axes", curve: Curve) -> None:
    """Write the best value on the far side of its panel's title, and draw a line at it."""
    epochs, values = curve
    best = max(range(len(values)), key=values.__getitem__)
    axes.axhline(values[best], color="C0", linewidth=0.8, linestyle=":")
    axes.set_title(f"best AP {values[best]:.3f} in epoch {epochs[best]:.3g}", loc="right", size=9)


def _trend(curve: Curve) -> Curve:
    """Replace a long curve by the medians of equal pieces, which single bad steps do not move."""
    epochs, values = (np.array_split(numbers, _NUM_PIECES) for numbers in curve)
    middles = [float(piece.mean()) for piece in epochs]
    return middles, [float(np.median(piece)) for piece in values]


def _epoch_label(rows: Iterable[Row]) -> str:
    """Name the axis, with the number of steps in an epoch."""
    for row in rows:
        step, epoch = row.get("step"), row.get("epoch")
        if step and epoch:
            return f"epoch (of {step / epoch:.0f} steps)"
    return "epoch"


def _loss_names(rows: Iterable[Row]) -> tuple[str, ...]:
    """Return `loss`, their sum, before its parts."""
    parts = {name for row in rows for name in row if name.startswith("loss_")}
    return ("loss", *sorted(parts))


def _curves(rows: Iterable[Row], names: Sequence[str]) -> dict[str, Curve]:
    """Gather the points of each name that has any."""
    points: dict[str, Curve] = {name: ([], []) for name in names}
    for row in rows:
        epoch = row.get("epoch")
        for name in names:
            value = row.get(name)
            if epoch is not None and value is not None:
                points[name][0].append(epoch)
                points[name][1].append(value)
    return {name: curve for name, curve in points.items() if curve[0]}
