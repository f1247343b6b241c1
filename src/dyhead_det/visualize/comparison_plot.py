"""Detectors beside each other: AP over the steps of runs, and AP in total and of each class."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dyhead_det.visualize.evaluation_plots import COLORS, label, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_comparison(
    *,
    names: Sequence[str],
    curves: Sequence[Sequence[tuple[int, float]]],
    totals: Sequence[float | None],
    classes: Sequence[Sequence[float | None]],
    class_names: Sequence[str],
) -> "Figure":
    """Draw AP in total and of each class, below AP over the steps of runs.

    Args:
        names: of the detectors.
        curves: step and AP of each evaluation of each detector; empty where it is no run. They are
            left out where none has two evaluations.
        totals: AP of each detector; None where there were no objects.
        classes: AP of each class, for each detector; None where the class has no objects.
        class_names: in the order of the classes.
    """
    has_curves = any(len(curve) > 1 for curve in curves)
    height_of_bars = 1.2 + 0.16 * len(names) * (1 + len(class_names))
    figure = new_figure((3.2 if has_curves else 0) + 0.4 + height_of_bars)
    shares = [3.2, height_of_bars]
    panels = figure.subplots(
        1 + has_curves, height_ratios=shares if has_curves else None, squeeze=False
    )[:, 0]
    if has_curves:
        for number, curve in enumerate(curves):
            if curve:
                steps, aps = zip(*curve, strict=True)
                color = COLORS[number % len(COLORS)]
                panels[0].plot(steps, aps, color=color, marker="o", ms=3)
        panels[0].set(xlabel="step", ylabel="AP")
        panels[0].set_ylim(bottom=0)
        tidy(panels[0])
    height = 0.8 / len(names)
    rows = np.arange(1 + len(class_names))
    for number, (name, total, values) in enumerate(zip(names, totals, classes, strict=True)):
        panels[-1].barh(
            rows + (number - (len(names) - 1) / 2) * height,
            [value or 0.0 for value in (total, *values)],
            height=0.9 * height,
            color=COLORS[number % len(COLORS)],
            label=label(name),
        )
    panels[-1].set_yticks(rows, ["all classes", *map(label, class_names)], size=8)
    panels[-1].axhline(0.5, color="0.8", lw=0.8)
    panels[-1].invert_yaxis()
    panels[-1].set(xlabel="AP", xlim=(0, 1))
    tidy(panels[-1])
    figure.legend(*panels[-1].get_legend_handles_labels(), loc="outside upper left", fontsize=8)
    return figure
