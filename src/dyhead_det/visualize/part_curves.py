"""Curves of the parts of a detector over a run: gradient norms, relative steps, clipping."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from dyhead_det.files import written_whole

Row = Mapping[str, float | int | None]

PANELS = {
    "grad_norm/": "norm of the gradients before clipping",
    "update_ratio/": "step in relation to the weights",
}


def plot_part_curves(rows: Sequence[Row], path: Path) -> bool:
    """Draw what `train.log_parts` has left in metrics.jsonl; nothing where there is nothing.

    Args:
        rows: `step` with `grad_norm/<part>`, `update_ratio/<part>` and `clipped`.
        path: The PNG to write, completely or not at all.

    Returns:
        Whether it was written.
    """
    # Imported here because it takes half a second.
    from matplotlib.figure import Figure  # noqa: PLC0415

    logged = [row for row in rows if any(name.startswith(tuple(PANELS)) for name in row)]
    if not logged:
        return False
    figure = Figure(figsize=(9, 8), layout="constrained")
    *logarithmic, clipping = figure.subplots(len(PANELS) + 1, sharex=True)
    names = {name for row in logged for name in row}
    parts = sorted({name.partition("/")[2] for name in names if name.startswith(tuple(PANELS))})
    for axes, (prefix, title) in zip(logarithmic, PANELS.items(), strict=True):
        for number, part in enumerate(parts):
            points = [
                (row["step"], value)
                for row in logged
                if (value := row.get(f"{prefix}{part}"))  # zero has no logarithm
            ]
            if points:
                axes.plot(*zip(*points, strict=True), color=f"C{number}", label=part, marker=".")
        axes.set_yscale("log")
        axes.set_title(title, loc="left", size=10)
        if axes.lines:
            axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    clipping.plot([row["step"] for row in logged], [row.get("clipped", 0) for row in logged], "C0")
    clipping.set_title("share of the steps whose gradients were clipped", loc="left", size=10)
    clipping.set(ylim=(-0.05, 1.05), xlabel="step")
    for axes in (*logarithmic, clipping):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    with written_whole(path) as unfinished:
        figure.savefig(unfinished, format="png")
    return True
