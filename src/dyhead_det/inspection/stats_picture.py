"""One picture of what a data set holds: classes, sizes and shapes of boxes, anchors, images."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dyhead_det.data.coco.records import Floats
from dyhead_det.data.statistics import MEDIUM_SIDE, SMALL_SIDE
from dyhead_det.inspection.anchor_fit import REACHED_IOU
from dyhead_det.inspection.stats import DataStats
from dyhead_det.visualize.evaluation_plots import label, save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_CLASSES, _FEW_CLASSES = 25, 8
_NUM_BINS = 40
_OURS, _FITTED, _BOUND = "C0", "C1", "0.4"


def draw_stats(stats: DataStats, path: Path) -> None:
    """Draw statistics of a data set.

    Args:
        stats: what was counted.
        path: the PNG to write, completely or not at all.
    """
    # Imported here because it takes half a second; without pyplot, whose state belongs to the
    # program that calls.
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(15, 9), layout="constrained")
    panels: Sequence[Callable[[Axes, DataStats], None]] = (
        _draw_classes,
        _draw_sides,
        _draw_ratios,
        _draw_ious,
        _draw_objects_per_image,
        _draw_image_sizes,
    )
    for axes, draw in zip(figure.subplots(2, 3).flat, panels, strict=True):
        draw(axes, stats)
        axes.spines[["top", "right"]].set_visible(False)
    save_png(figure, path)


def _draw_classes(axes: "Axes", stats: DataStats) -> None:
    ordered = sorted(stats.classes, key=lambda each: -each.num_objects)
    shown = ordered[:_MOST_CLASSES][::-1]
    names = [label(each.name) for each in shown]
    bars = axes.barh(range(len(shown)), [each.num_objects for each in shown], color=_OURS)
    axes.bar_label(bars, fontsize=7, padding=2)
    axes.set_yticks(range(len(shown)), names, fontsize=8)
    axes.margins(x=0.12)
    axes.set_ylim(len(shown) - max(len(shown), _FEW_CLASSES) - 0.5, len(shown) - 0.5)
    more = len(ordered) - len(shown)
    without = sum(not each.num_objects for each in ordered)
    remarks = [f"{more} rarer ones not shown"] * (more > 0) + [f"{without} without"] * (without > 0)
    _title(axes, "objects of each class", ", ".join(remarks))


def _draw_sides(axes: "Axes", stats: DataStats) -> None:
    sides = np.sqrt(stats.sides_wh.prod(axis=1))
    _histogram(axes, sides)
    for bound in (SMALL_SIDE, MEDIUM_SIDE):
        axes.axvline(bound, color=_BOUND, linewidth=1, linestyle=":")
    top = 1.12 * axes.get_ylim()[1]  # above the bars
    axes.set_ylim(top=top)
    for place, name, side in (
        (SMALL_SIDE, "small ", "right"),
        (SMALL_SIDE, " medium", "left"),
        (MEDIUM_SIDE, " large", "left"),
    ):
        axes.text(place, top, name, ha=side, va="top", fontsize=8, color=_BOUND)
    _mark_anchors(axes, [np.sqrt((s[2] - s[0]) * (s[3] - s[1])) for s in _shapes(stats)])
    axes.set_xlabel("square root of the area in pixels")
    _title(axes, f"sizes of objects at the input of {label(stats.config_name)}", "")


def _draw_ratios(axes: "Axes", stats: DataStats) -> None:
    _histogram(axes, stats.sides_wh[:, 1] / stats.sides_wh[:, 0])
    _mark_anchors(axes, [(s[3] - s[1]) / (s[2] - s[0]) for s in _shapes(stats)])
    axes.set_xlabel("height by width")
    _title(axes, "shapes of objects", "")


def _draw_ious(axes: "Axes", stats: DataStats) -> None:
    if stats.ious is None:
        axes.text(0.5, 0.5, f"{stats.model.detector.name} has no anchors", ha="center")
        axes.set_axis_off()
        return
    curves = [(label(stats.config_name), stats.ious, _OURS)]
    if stats.suggested_ious is not None:
        curves.append(("as suggested", stats.suggested_ious, _FITTED))
    for name, ious, color in curves:
        ordered = np.sort(ious)
        share = np.arange(1, len(ordered) + 1) / len(ordered)
        shown = f"{name}: {(ious < REACHED_IOU).mean():.1%} below {REACHED_IOU}"
        axes.plot(ordered, share, color=color, label=shown)
    axes.axvline(REACHED_IOU, color=_BOUND, linewidth=1, linestyle=":")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    axes.set_xlabel("IoU of an object with its best anchor")
    axes.set_ylabel("share of the objects below")
    _title(axes, "how anchors fit", "")


def _draw_objects_per_image(axes: "Axes", stats: DataStats) -> None:
    numbers = stats.objects_per_image
    most = int(numbers.max())
    width = max(1, -(-(most + 1) // _NUM_BINS))
    axes.hist(numbers, bins=np.arange(-0.5, most + width + 0.5, width).tolist(), color=_OURS)
    axes.set_xlabel("objects in an image")
    axes.set_ylabel("images")
    _title(axes, "objects per image", f"{stats.counts.num_empty} images without one")


def _draw_image_sizes(axes: "Axes", stats: DataStats) -> None:
    sizes, numbers = np.unique(stats.dataset.sizes_wh, axis=0, return_counts=True)
    areas = 15 + 285 * numbers / numbers.max()
    axes.scatter(sizes[:, 0], sizes[:, 1], s=areas, alpha=0.6, color=_OURS, linewidths=0)
    for row in np.argsort(-numbers, kind="stable")[:3]:
        width, height = sizes[row].tolist()
        text = f"{width} x {height}: {numbers[row]}   "
        axes.annotate(text, (width, height), fontsize=8, va="center", ha="right")
    largest = 1.25 * sizes.max()
    axes.set_xlim(0, largest)
    axes.set_ylim(0, largest)
    axes.set_xlabel("width")
    axes.set_ylabel("height")
    _title(axes, "sizes of images in pixels", f"{len(sizes)} different")


def _histogram(axes: "Axes", values: Floats) -> None:
    low, high = values.min() / 1.05, values.max() * 1.05
    axes.hist(values, bins=np.geomspace(low, high, _NUM_BINS).tolist(), color=_OURS)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylabel("objects")


def _shapes(stats: DataStats) -> list[Floats]:
    return [shape for level in stats.levels for shape in level.shapes]


def _mark_anchors(axes: "Axes", places: Sequence[float]) -> None:
    if not places:
        return
    distinct = np.unique(np.round(places, 3))
    marks = axes.get_xaxis_transform()
    heights = np.full(len(distinct), 0.015)
    axes.plot(distinct, heights, "^", color="k", transform=marks, label="anchors")
    axes.legend(fontsize=8, frameon=False, loc="upper right")


def _title(axes: "Axes", title: str, remark: str) -> None:
    axes.set_title(title, loc="left", size=10)
    axes.set_title(remark, loc="right", size=8, color=_BOUND)
