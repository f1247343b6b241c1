"""One picture of what a DyHead looked at, to be understood from its own labels."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dyhead_det.visualize.attention import COEFFICIENTS, PLAIN_RELU, SOURCES, Attention, Floats
from dyhead_det.visualize.evaluation_plots import label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

# More blocks would be too small to see: the first ones are drawn.
MOST_BLOCKS = 8
MOST_BOXES = 20
# Itself, finer, coarser: told apart with any kind of color vision, and by their shape.
COLORS = ("#ffb000", "#00c8ff", "#ff3d9a")
MARKERS = ("s", "o", "^")
_SMALL = 8
_LARGEST_MARK = 110.0  # square points, for a mask of 1


def draw_attention(attention: Attention) -> "Figure":
    """Draw an image, feature maps, sampling points, gates and activations on one page."""
    # Imported here because it takes half a second; without pyplot, whose state belongs to the
    # program that calls.
    from matplotlib.figure import Figure  # noqa: PLC0415

    num_levels = len(attention.levels)
    height, width = attention.image.shape[:2]
    num_columns = min(attention.num_blocks, MOST_BLOCKS) + 2
    page_width = max(12.0, 2.2 * num_columns)  # inches
    map_height = min(0.86 * page_width / num_columns * min(height / width, 1.5), 2.6) + 0.25
    heights = [4.6, 0.8 + num_levels * map_height, 4.4, 2.7, 4.4]
    figure = Figure(figsize=(page_width, sum(heights)), dpi=110, layout="constrained")
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    panels = (_draw_header, _draw_maps, _draw_sampling, _draw_gates, _draw_activations)
    for draw, part in zip(panels, parts, strict=True):
        draw(part, attention)
    return figure


def _blocks(attention: Attention) -> range:
    return range(min(attention.num_blocks, MOST_BLOCKS))


def _title(part: "SubFigure", title: str) -> None:
    part.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", wrap=True)


def _name(attention: Attention, level: int) -> str:
    return attention.levels[level].upper()


def _place(attention: Attention) -> str:
    x, y = attention.point
    place = f"pixel ({x:.0f}, {y:.0f})"
    if attention.chosen is None:
        return place
    caption = label(attention.captions[attention.chosen], max_length=60)
    return f"the middle of box {attention.chosen + 1}, {caption}, {place}"


def _draw_header(part: "SubFigure", attention: Attention) -> None:
    picture, text = part.subplots(1, 2)
    _show(picture, attention.image)
    for number in reversed(range(min(len(attention.boxes), MOST_BOXES))):
        _draw_box(picture, attention, number)
    picture.plot(*attention.point, marker="+", color="white", ms=16, mew=4)
    picture.plot(*attention.point, marker="+", color="black", ms=14, mew=1.8)
    text.set_axis_off()
    text.set_title("What DyHead looked at", loc="left", fontsize=14, fontweight="bold")
    text.text(0, 1, _explanation(attention), va="top", fontsize=9.5, linespacing=1.4)


def _explanation(attention: Attention) -> str:
    level = attention.level
    finest, coarsest = 0, len(attention.levels) - 1
    grid = _name(attention, attention.grids[level])
    row, column = attention.location
    stacked = len(set(attention.grids)) == 1 and coarsest > 0
    where = f"all levels are resized to {grid} first" if stacked else "each at its own size"
    return (
        f"In this picture: {_place(attention)} (black cross),\n"
        f"on level {_name(attention, level)}: row {row}, column {column} of its grid ({grid}).\n\n"
        f"The detector sees the image as {len(attention.levels)} feature maps, from fine "
        f"({_name(attention, finest)}, a position is\n"
        f"{_pixels(attention, finest)} image pixels wide) to coarse ({_name(attention, coarsest)}, "
        f"{_pixels(attention, coarsest)} pixels). DyHead changes them (A)\n"
        f"in {attention.num_blocks} block{'s' * (attention.num_blocks > 1)}, {where}.\n"
        "Each block reads the maps of the one before and applies three attentions:\n"
        "  B  spatial: at which points a level reads itself and its two neighbors,\n"
        "  C  scale: how much each of these three counts,\n"
        "  D  task: how the values of each channel are bent.\n"
        "All of them depend on the image. The detector's heads find the boxes in\n"
        "the changed maps.\n\n"
        "Check: the maps that these numbers lead to and those that the detector\n"
        f"computed differ by at most {attention.difference:.0e} of the largest value."
    )


def _pixels(attention: Attention, level: int) -> str:
    return f"{attention.strides[level] / np.mean(attention.scale_xy):.3g}"


def _show(axes: "Axes", image: NDArray[np.uint8]) -> None:
    height, width = image.shape[:2]
    axes.imshow(image, extent=(0, width, height, 0))
    axes.set_axis_off()


def _draw_box(axes: "Axes", attention: Attention, number: int) -> None:
    from matplotlib.patches import Rectangle  # noqa: PLC0415 - as above

    left, top, right, bottom = attention.boxes[number].tolist()
    is_chosen = number == attention.chosen
    color = "white" if is_chosen else "#d0d0d0"
    for line, shade in ((3.6 if is_chosen else 1.6, "black"), (1.8 if is_chosen else 0.8, color)):
        box = Rectangle((left, top), right - left, bottom - top, fill=False, ec=shade, lw=line)
        axes.add_patch(box)
    caption = f"{number + 1}"
    if is_chosen:
        caption += f" {label(attention.captions[number], max_length=40)}"
    axes.text(
        left, top, caption, color="black", fontsize=_SMALL, va="bottom", clip_on=True,
        bbox={"facecolor": color, "edgecolor": "none", "pad": 1.0, "alpha": 0.85},
    )  # fmt: skip


def _draw_maps(part: "SubFigure", attention: Attention) -> None:
    """One row a level: before DyHead, after each block, and what the heads get."""
    from matplotlib.cm import ScalarMappable  # noqa: PLC0415 - as above

    _title(
        part,
        "A  Feature maps: strength (root mean square over all channels) at every position, by "
        "level",
    )
    columns = ["before DyHead", *(f"after block {b + 1}" for b in _blocks(attention))]
    columns.append("what the heads get")
    grid = part.subplots(len(attention.levels), len(columns), squeeze=False)
    height, width = attention.image.shape[:2]
    for level, name in enumerate(attention.levels):
        blocks = [attention.blocks[name][b] for b in _blocks(attention)]
        maps = [attention.before[name], *blocks, attention.after[name]]
        for axes, title, values in zip(grid[level], columns, maps, strict=True):
            low, high = float(values.min()), float(values.max())
            axes.imshow(values, extent=(0, width, height, 0), cmap="viridis", vmin=low, vmax=high)
            axes.set(xticks=[], yticks=[])
            axes.set_xlabel(f"{low:.3g} to {high:.3g}", fontsize=7, labelpad=1)
            if level == 0:
                axes.set_title(title, fontsize=9)
            if level == attention.level:
                axes.plot(*attention.point, marker="+", color="white", ms=9, mew=2.4)
                axes.plot(*attention.point, marker="+", color="black", ms=8, mew=1)
        grid[level, -1].set_xlabel(
            f"{low:.3g} to {high:.3g}, changed by {attention.change[name]:.1%}",
            fontsize=7,
            labelpad=1,
        )
        grid[level, 0].set_ylabel(
            f"{name.upper()}\n1 position = {_pixels(attention, level)} px", fontsize=_SMALL
        )
    colorbar = part.colorbar(
        ScalarMappable(cmap="viridis"), ax=grid, shrink=0.5, pad=0.01, ticks=(0, 1)
    )
    colorbar.ax.set_yticklabels(["lowest of\nthe map", "highest of\nthe map"], fontsize=_SMALL)


def _draw_sampling(part: "SubFigure", attention: Attention) -> None:
    """One crop of the image a block, with the points it reads for one location."""
    level = attention.level
    _title(
        part,
        f"B  Spatial attention: the points that each block reads for {_name(attention, level)} at "
        "the black cross; the larger a point, the more it counts",
    )
    if np.isnan(attention.points_mask).all():
        _say(part, "no deformable convolutions in this DyHead")
        return
    row = part.subplots(1, len(_blocks(attention)), squeeze=False)[0]
    for block, axes in enumerate(row):
        _show(axes, attention.image)
        axes.set_axis_on()
        axes.set_facecolor("#808080")
        if attention.chosen is not None:
            _draw_box(axes, attention, attention.chosen)
        for source, color, marker in _sources(attention):
            points, masks = attention.points_xy[block, source], attention.points_mask[block, source]
            axes.scatter(
                points[:, 0], points[:, 1], s=_LARGEST_MARK * masks, marker=marker,
                facecolor=color, edgecolor="black", linewidth=0.7, alpha=0.9,
            )  # fmt: skip
        axes.plot(*attention.point, marker="+", color="black", ms=9, mew=1.4)
        left, right, bottom, top = _window(attention, block)
        axes.set(xlim=(left, right), ylim=(bottom, top))
        axes.tick_params(labelsize=7)
        axes.set_title(f"block {block + 1}", fontsize=9)
        axes.set_xlabel(_units(attention.points_xy[block], (left, right, bottom, top)), fontsize=7)
    part.legend(
        handles=_legend(attention), loc="outside lower center", ncols=6, fontsize=_SMALL + 1,
        frameon=False,
    )  # fmt: skip


def _sources(attention: Attention) -> list[tuple[int, str, str]]:
    """Return what is read: place in `SOURCES`, color and marker."""
    there = [i for i in range(len(SOURCES)) if not np.isnan(attention.points_mask[:, i]).any()]
    if len(set(attention.grids)) == 1:  # all levels are read at the same points
        there = there[:1]
    return [(i, COLORS[i], MARKERS[i]) for i in there]


def _legend(attention: Attention) -> list[object]:
    from matplotlib.lines import Line2D  # noqa: PLC0415 - as above

    def mark(label: str, color: str, marker: str, mask: float) -> Line2D:
        size = float(np.sqrt(_LARGEST_MARK * mask))
        return Line2D(
            [], [], ls="", label=label, marker=marker, mfc=color, mec="black", mew=0.7, ms=size
        )

    level = attention.level
    sources = _sources(attention)
    names = [
        f"read on {_name(attention, level + (0, -1, 1)[i])} ({SOURCES[i]})" for i, _, _ in sources
    ]
    if len(sources) == 1 and len(attention.levels) > 1:
        names = ["read on all levels (same points)"]
    marks = [
        mark(name, color, marker, 0.6)
        for name, (_, color, marker) in zip(names, sources, strict=True)
    ]
    sizes = [mark(f"weight (mask) {mask:g}", "white", "o", mask) for mask in (0.1, 0.5, 1.0)]
    return [*marks, *sizes]


def _window(attention: Attention, block: int) -> tuple[float, float, float, float]:
    """Return left, right, bottom and top of a square that holds the points and the box."""
    points = attention.points_xy[block]
    points = points[~np.isnan(points).any(axis=-1)]
    corners = [points.min(axis=0), points.max(axis=0), np.array(attention.point)]
    if attention.chosen is not None:
        corners += [attention.boxes[attention.chosen, :2], attention.boxes[attention.chosen, 2:]]
    height, width = attention.image.shape[:2]
    limits = np.array([width, height])
    # What is far outside the image reads nothing: it may be outside the picture too.
    low = np.maximum(np.min(corners, axis=0), -0.1 * limits)
    high = np.minimum(np.max(corners, axis=0), 1.1 * limits)
    middle, half = (low + high) / 2, 0.55 * max(float((high - low).max()), 4.0)
    return middle[0] - half, middle[0] + half, middle[1] + half, middle[1] - half


def _units(points_xy: Floats, window: tuple[float, float, float, float]) -> str:
    """Name the unit of both axes, and how many points lie outside them."""
    left, right, bottom, top = window
    x, y = points_xy[~np.isnan(points_xy).any(axis=-1)].T
    outside = int(((x < left) | (x > right) | (y < top) | (y > bottom)).sum())
    return "image pixels" + (f"; {outside} of {len(x)} points farther away" if outside else "")


def _draw_gates(part: "SubFigure", attention: Attention) -> None:
    """One table a level: rows for what is read, a column for each block."""
    is_stacked = len(set(attention.grids)) == 1
    _title(
        part,
        "C  Scale attention: factor of what each level reads of itself and of its neighbors, "
        f"before the average (from {0 if is_stacked else 0.5:g} to 1)",
    )
    if np.isnan(attention.gates).all():
        _say(part, "no scale attention in this DyHead")
        return
    grid = part.subplots(1, len(attention.levels), squeeze=False)[0]
    blocks = _blocks(attention)
    for level, axes in enumerate(grid):
        values = attention.gates[: len(blocks), level].T  # (3, N)
        axes.imshow(values, cmap="cividis", vmin=0, vmax=1, aspect="auto")
        for (source, block), value in np.ndenumerate(values):
            if not np.isnan(value):
                color = "black" if value > 0.6 else "white"
                axes.text(block, source, f"{value:.2f}", ha="center", va="center", color=color,
                          fontsize=_SMALL)  # fmt: skip
        names = [
            f"{source} ({_name(attention, level + step)})"
            if 0 <= level + step < len(grid)
            else "none"
            for source, step in zip(SOURCES, (0, -1, 1), strict=True)
        ]
        axes.set_yticks(range(3), names, fontsize=_SMALL)
        axes.set_xticks(blocks, [str(b + 1) for b in blocks], fontsize=_SMALL)
        axes.set_xlabel("block", fontsize=_SMALL)
        axes.set_title(f"{_name(attention, level)} reads", fontsize=9)
    part.colorbar(grid[0].images[0], ax=grid, label="factor, 0 to 1", pad=0.01)


def _draw_activations(part: "SubFigure", attention: Attention) -> None:
    """Two rows: the activation of every channel as a curve, and its coefficients as a strip."""
    level = attention.level
    _title(
        part,
        f"D  Task attention on {_name(attention, level)}: the activation of each channel, "
        "max(slope 1 · x + shift 1, slope 2 · x + shift 2)",
    )
    if attention.coefficients is None:
        _say(part, "no task attention in this DyHead")
        return
    blocks = _blocks(attention)
    grid = part.subplots(2, len(blocks), squeeze=False, height_ratios=(1.25, 1))
    bent = attention.coefficients[:, level] - np.array(PLAIN_RELU)[:, None]  # (N, 4, C)
    most = max(float(np.abs(bent[: len(blocks)]).max()), 0.01)
    x = np.linspace(-3, 3, 61)
    for block in blocks:
        values = attention.coefficients[block, level]  # (4, C)
        curves, strip = grid[:, block]
        slope_1, shift_1, slope_2, shift_2 = values[:, :, None]
        y = np.maximum(slope_1 * x + shift_1, slope_2 * x + shift_2)
        curves.plot(x, y.T, color="C0", lw=0.4, alpha=0.25)
        curves.plot(x, np.maximum(x, 0), color="black", lw=1.6, ls="--")
        curves.set(ylim=(-1.5, 4.5))
        curves.set_title(f"block {block + 1}", fontsize=9)
        curves.set_xlabel("input x", fontsize=7, labelpad=1)
        curves.tick_params(labelsize=7)
        strip.imshow(
            bent[block], cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto",
            interpolation="nearest",
        )  # fmt: skip
        strip.set_yticks(range(4), COEFFICIENTS if block == 0 else [""] * 4, fontsize=_SMALL)
        strip.set_xlabel(f"channel, 0 to {values.shape[1] - 1}", fontsize=7, labelpad=1)
        strip.tick_params(labelsize=7)
    grid[0, 0].set_ylabel("output: one blue line\na channel; black:\na plain ReLU", fontsize=7)
    bar = part.colorbar(grid[1, 0].images[0], ax=grid[1], pad=0.01)
    bar.set_label("difference to\na plain ReLU", fontsize=_SMALL)


def _say(part: "SubFigure", text: str) -> None:
    axes = part.subplots()
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=11)
