"""Plots of an evaluation, from plain numbers: curves, confusions, errors, calibration.

All are drawn in black and middle tones on nothing, so that a page can show them on light and on
dark ground; as PNG they stand on white.
"""

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dyhead_det.escaping import printable
from dyhead_det.files import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

# Readable on white and on black.
COLORS = ("#3b82c4", "#d9822b", "#2f9e6e", "#b35fc0", "#c2484d", "#8f8a2e", "#3f9aa6", "#95705a")
_WIDTH = 6.2  # inches: wider ones would be too small to read on narrow windows
_MOST_NAMED = 8
_MOST_IN_MATRIX = 30
_LONGEST_NAME = 22


def new_figure(height: float) -> "Figure":
    """Return an empty figure; without pyplot, whose state belongs to the program that calls."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - it takes half a second

    return Figure(figsize=(_WIDTH, height), layout="constrained")


def save_png(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG, completely or not at all; its folder is made where needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as unfinished, _drawing():
        figure.savefig(unfinished, format="png", dpi=110, facecolor="white")


def to_svg(figure: "Figure") -> str:
    """Return a figure as an SVG element for a page: black takes the color of the page's text."""
    from matplotlib import rc_context  # noqa: PLC0415 - as above

    text = io.StringIO()
    with _drawing(), rc_context({"svg.fonttype": "none", "svg.hashsalt": "dyhead-det"}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = re.sub("<!--.*?-->|<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.S)
    return svg.replace("#000000", "currentColor")


@contextmanager
def _drawing() -> Iterator[None]:
    """Draw names in every script without a warning; where the font lacks them come boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        yield


def label(name: object, *, max_length: int = _LONGEST_NAME) -> str:
    r"""Return a name that matplotlib shows as it is: `$` starts no formula, `_` hides nothing."""
    shown = printable(name, max_length=max_length).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def plot_precision_recall(
    recalls: Floats, precisions: Mapping[float, Mapping[str, Floats]]
) -> "Figure":
    """Draw precision over recall of each class and their mean, a panel for each IoU.

    Args:
        recalls: (R,).
        precisions: by IoU and class, (R,) each.
    """
    figure = new_figure(3.3)
    panels = figure.subplots(1, len(precisions), sharey=True, squeeze=False)[0]
    for axes, (iou, of_classes) in zip(panels, precisions.items(), strict=True):
        is_many = len(of_classes) > _MOST_NAMED
        for number, (name, curve) in enumerate(of_classes.items()):
            color = "#888888" if is_many else COLORS[number]
            axes.plot(
                recalls, curve, color=color, lw=0.7 if is_many else 1.4, alpha=0.5 if is_many else 1
            )
            if not is_many:
                axes.lines[-1].set_label(label(name))
        if len(of_classes) > 1:
            mean = np.mean(list(of_classes.values()), axis=0)
            axes.plot(recalls, mean, color="#000000", lw=2, label="mean")
        axes.set(xlabel="recall", title=f"IoU {iou:.2f}", xlim=(0, 1), ylim=(0, 1.02))
        tidy(axes)
    panels[0].set_ylabel("precision")
    if panels[0].lines:
        panels[-1].legend(fontsize=8, frameon=False, loc="lower left")
    return figure


def plot_score_curves(
    scores: Floats, precision: Floats, recall: Floats, f1: Floats, best: tuple[float, float] | None
) -> "Figure":
    """Draw precision, recall and F1 of all classes together over the bound of the score.

    Args:
        scores: (S,).
        precision: NaN where nothing scores so much, (S,).
        recall: (S,).
        f1: (S,).
        best: bound and F1 of the highest point.
    """
    figure = new_figure(3.3)
    axes = figure.subplots()
    for number, (name, curve) in enumerate(
        {"precision": precision, "recall": recall, "F1": f1}.items()
    ):
        axes.plot(scores, curve, color=COLORS[number], lw=2.2 if name == "F1" else 1.4, label=name)
    if best is not None:
        axes.axvline(best[0], color="#000000", lw=0.8, ls=":")
        axes.set_title(
            f"highest F1 {best[1]:.3f} from score {best[0]:.2f} on", size=10, loc="right"
        )
    axes.set(xlabel="smallest score that counts", xlim=(0, 1), ylim=(0, 1.02))
    tidy(axes)
    axes.legend(fontsize=8, frameon=False)
    return figure


def plot_confusion(
    matrix: NDArray[np.int64], names: Sequence[str], *, iou: float, min_score: float
) -> "Figure":
    """Draw a confusion matrix with shares of the rows; of many classes those with most objects.

    Args:
        matrix: annotated by detected, background last, (K + 1, K + 1).
        names: of the classes.
        iou: at which it was counted.
        min_score: from which on detections were counted.
    """
    shown = np.sort(np.argsort(-matrix[:-1].sum(axis=1), kind="stable")[:_MOST_IN_MATRIX])
    left_out = len(names) - len(shown)
    rows = np.append(shown, len(names))
    part = matrix[np.ix_(rows, rows)]
    totals = matrix[rows].sum(axis=1, keepdims=True)
    shares = part / np.maximum(totals, 1)
    labels = [label(names[k]) for k in shown]
    num = len(rows)
    figure = new_figure(min(6.2, 2.6 + 0.42 * num))
    axes = figure.subplots()
    cells = np.zeros((num, num, 4))
    cells[..., :3] = np.array([59, 130, 196]) / 255
    cells[..., 3] = 0.85 * shares
    axes.imshow(cells, aspect="auto", interpolation="nearest")
    size = 9 if num <= 12 else 5
    if num <= 20:
        for row, column in np.argwhere(part > 0):
            axes.text(column, row, part[row, column], ha="center", va="center", size=size)
    axes.set_xticks(range(num), [*labels, "missed"], rotation=90 if num > 5 else 0, size=size)
    axes.set_yticks(range(num), [*labels, "background"], size=size)
    axes.set(xlabel="detected as", ylabel="annotated as")
    more = f"; {left_out} classes with fewer objects left out" if left_out else ""
    axes.set_title(
        f"counts at IoU {iou:.2f}, scores from {min_score:.2f} on{more};\ncolor: share of the row",
        size=9,
        loc="left",
    )
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def plot_bars(values: Mapping[str, float | None], *, axis: str, title: str = "") -> "Figure":
    """Draw a horizontal bar with its number for each name; a dash where there is none."""
    figure = new_figure(0.9 + 0.32 * len(values))
    axes = figure.subplots()
    lengths = [value or 0.0 for value in values.values()]
    axes.barh(range(len(values)), lengths, color=COLORS[0], height=0.65)
    for row, value in enumerate(values.values()):
        text = "-" if value is None else f"{value:.3f}"
        axes.text(value or 0, row, f" {text}", va="center", size=9)
    axes.set_yticks(range(len(values)), [label(name) for name in values])
    axes.invert_yaxis()
    axes.set(xlabel=axis, xlim=(0, 1.15 * max([*lengths, 1e-3])))
    axes.set_title(title, size=10, loc="left")
    tidy(axes)
    return figure


def plot_calibration(
    counts: NDArray[np.int64], scores: Floats, shares: Floats, error: float | None
) -> "Figure":
    """Draw the share of right detections over the score, above how many there are of each score.

    Args:
        counts: of detections in equal parts of the scores from 0 to 1, (B,).
        scores: their means, NaN where there is none, (B,).
        shares: of right ones among them, (B,).
        error: expected calibration error.
    """
    figure = new_figure(4)
    upper, lower = figure.subplots(2, sharex=True, height_ratios=[3, 1])
    middles = (np.arange(len(counts)) + 0.5) / len(counts)
    upper.plot([0, 1], [0, 1], color="#000000", lw=0.8, ls=":", label="score = share")
    upper.bar(middles, np.nan_to_num(shares), width=0.9 / len(counts), color=COLORS[0], alpha=0.6)
    upper.plot(scores, shares, "o", color=COLORS[1], ms=4, label="mean score, share that is right")
    title = "no detections" if error is None else f"expected calibration error {error:.3f}"
    upper.set_title(title, size=10, loc="right")
    upper.set(ylabel="share that is right", ylim=(0, 1.02), xlim=(0, 1))
    upper.legend(fontsize=8, frameon=False, loc="upper left")
    lower.bar(middles, np.maximum(counts, 0), width=0.9 / len(counts), color="#888888")
    if counts.any():
        lower.set_yscale("log")
    lower.set(xlabel="score", ylabel="detections")
    for axes in (upper, lower):
        tidy(axes)
    return figure


def tidy(axes: "Axes") -> None:
    """Draw a faint grid and no frame."""
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
