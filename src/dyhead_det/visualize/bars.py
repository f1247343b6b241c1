"""Horizontal bars, group by group, with their numbers."""

from collections.abc import Mapping
from pathlib import Path

from dyhead_det.visualize.evaluation_plots import label, save_png

_LONGEST_NAME = 200  # letters


def draw_bars(groups: Mapping[str, Mapping[str, float]], axis: str, path: Path) -> None:
    """Draw one bar per name, those of a group in one color.

    Args:
        groups: lengths by name, by group.
        axis: what the lengths are.
        path: the PNG to write, completely or not at all.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - takes half a second

    names = [
        label(f"{group}: {name}" if group else name, max_length=_LONGEST_NAME).replace("`", "")
        for group, values in groups.items()
        for name in values
    ]
    lengths = [length for values in groups.values() for length in values.values()]
    colors = [f"C{row}" for row, values in enumerate(groups.values()) for _ in values]
    figure = Figure(figsize=(9, 1 + 0.35 * len(names)), layout="constrained")
    axes = figure.subplots()
    positions = range(len(names))
    axes.bar_label(axes.barh(positions, lengths, color=colors), fmt="%.3g", padding=3)
    axes.set_yticks(positions, names)
    axes.set(xlabel=axis)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.spines[["top", "right"]].set_visible(False)
    save_png(figure, path)
