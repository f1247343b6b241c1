"""Draw one DyHead block as the documentation shows it.

    python scripts/draw_block.py docs/images/dyhead_block.svg

The ending of the name chooses the format.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

MAP = "#dbe7f3"
SPATIAL = "#fbe3c4"
SCALE = "#d5ecd4"
TASK = "#ead7ee"
INK = "#222222"

ROWS = {"finer": 5.0, "same": 3.0, "coarser": 1.0}  # where each candidate's row lies
LEVELS = {
    "finer": "finer level\n$x_{l-1}$: C x 2H x 2W",
    "same": "this level\n$x_l$: C x H x W",
    "coarser": "coarser level\n$x_{l+1}$: C x H/2 x W/2",
}
CONVOLUTIONS = {
    "finer": "deformable 3x3\nstride 2, GroupNorm",
    "same": "deformable 3x3\nstride 1, GroupNorm",
    "coarser": "deformable 3x3, Group-\nNorm, enlarged to H x W",
}


def main() -> None:
    """Read the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the picture: .svg, .png or .pdf")
    out = parser.parse_args().out
    out.parent.mkdir(parents=True, exist_ok=True)
    draw_block(out)


def draw_block(out: Path) -> None:
    """Draw the block for one level; every level goes through the same weights."""
    plt.rcParams["svg.hashsalt"] = "dyhead"  # the same bytes for the same drawing
    figure, axes = plt.subplots(figsize=(12.6, 5.4))
    axes.set_xlim(0, 18.6)
    axes.set_ylim(0, 7.6)
    axes.axis("off")
    _box(
        axes,
        5.6,
        6.8,
        "3x3 convolution of this level:\noffsets (18) and masks (9)",
        SPATIAL,
        width=5.0,
    )
    axes.plot([3.35], [3.0], marker="o", markersize=4, color=INK)
    _arrow(axes, (3.35, 3.0), (3.35, 6.29), style=":")
    axes.plot([3.9, 3.9], [6.29, 1.25], color=INK, linewidth=0.9, linestyle=":")
    mean = _box(axes, 13.35, 3.0, "mean of\nthe candidates", SCALE, width=2.1)
    for name, height in ROWS.items():
        level = _box(axes, 1.5, height, LEVELS[name], MAP, width=2.8)
        convolution = _box(axes, 6.1, height, CONVOLUTIONS[name], SPATIAL, width=3.4)
        gate = _box(
            axes, 10.1, height, "times one number:\npool, 1x1, hard sigmoid", SCALE, width=3.2
        )
        _arrow(axes, (level[1], height), (convolution[0], height))
        _arrow(axes, (convolution[1], height), (gate[0], height))
        _arrow(axes, (gate[1], height), (mean[0], 3.0 + 0.12 * (height - 3.0)))
    for height in ROWS.values():
        _arrow(axes, (3.9, height + 0.25), (4.4, height + 0.25), style=":")
    task = _box(axes, 16.0, 3.0, "dynamic ReLU:\nmax of two lines\nper channel", TASK, width=2.3)
    _arrow(axes, (mean[1], 3.0), (task[0], 3.0))
    _arrow(axes, (task[1], 3.0), (18.3, 3.0))
    axes.text(17.75, 3.2, "new $x_l$", ha="center", color=INK, fontsize=10)
    for x, text, color in (
        (6.1, "spatial attention", SPATIAL),
        (11.5, "scale attention", SCALE),
        (16.0, "task attention", TASK),
    ):
        axes.text(
            x, 0.05, text, ha="center", va="bottom", fontsize=11, color=INK,
            bbox={"facecolor": color, "edgecolor": "none", "boxstyle": "round,pad=0.25"},
        )  # fmt: skip
    metadata = {"Date": None} if out.suffix == ".svg" else None
    figure.savefig(out, bbox_inches="tight", facecolor="white", dpi=150, metadata=metadata)
    plt.close(figure)


def _box(
    axes: Axes, x: float, y: float, text: str, color: str, *, width: float
) -> tuple[float, float]:
    """Draw a labeled box about a center and return its left and right border."""
    height = 0.38 + 0.32 * (text.count("\n") + 1)
    left, right = x - width / 2, x + width / 2
    axes.add_patch(
        FancyBboxPatch(
            (left, y - height / 2), width, height, boxstyle="round,pad=0.02,rounding_size=0.12",
            facecolor=color, edgecolor=INK, linewidth=0.9,
        )
    )  # fmt: skip
    axes.text(x, y, text, ha="center", va="center", fontsize=9.5, color=INK)
    return left, right


def _arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], *, style: str = "-"
) -> None:
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=11, color=INK, linewidth=0.9,
            linestyle=style, shrinkA=0, shrinkB=0,
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
