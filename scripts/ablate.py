"""What each part of DyHead gives and costs: one table over a grid of variants of one run.

    python scripts/ablate.py configs/own_data.yaml --set data.root=mydata --steps 500
    python scripts/ablate.py configs/own_data.yaml --set data.root=mydata --only plain all stacked

Every row is one run of `dyhead-det train`, a folder of its own, evaluated once at its end. The same
command goes on where it was stopped and skips what is finished; a row that fails is reported and
the others go on. Rows that ask for the same run share it. The folder gets ablation.md, .csv and
.png with all the rows that are finished.
"""

import argparse
import csv
import json
import logging
import math
import os
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from dyhead_det.config import RunConfig, to_plain
from dyhead_det.config_file import load_config
from dyhead_det.engine.datasets import load_training_data
from dyhead_det.engine.device import choose_device
from dyhead_det.engine.metrics_file import read_rows
from dyhead_det.engine.train import train
from dyhead_det.errors import ConfigError, DyHeadDetError, StoppedError
from dyhead_det.files import written_whole
from dyhead_det.models.cost import measure_cost

logger = logging.getLogger("ablate")

SCORES = ("AP", "AP50", "APs", "APm", "APl")


@dataclass(frozen=True)
class Variant:
    """One row of the grid: its name on the command line, what it asks, and how it says so."""

    name: str
    group: str
    label: str
    overrides: tuple[str, ...]


GRID = (
    Variant("plain", "attention", "no DyHead", ("model.dyhead=null",)),
    *(
        Variant(name, "attention", f"{name} alone", (f"model.dyhead.attention=[{name}]",))
        for name in ("scale", "spatial", "task")
    ),
    Variant("all", "attention", "all three", ("model.dyhead.attention=[scale, spatial, task]",)),
    *(
        Variant(
            f"blocks-{number}",
            "blocks",
            f"{number} block{'s' if number > 1 else ''}",
            (f"model.dyhead.num_blocks={number}",),
        )
        for number in (1, 2, 4, 6)
    ),
    Variant("levels", "scheme", "levels", ("model.dyhead.scheme=levels",)),
    Variant(
        "stacked",
        "scheme",
        "stacked",
        ("model.dyhead.scheme=stacked", "model.dyhead.coarse_offsets=resized"),
    ),
    *(
        Variant(
            rule,
            "offsets",
            f"{rule} offsets",
            ("model.dyhead.scheme=levels", f"model.dyhead.coarse_offsets={rule}"),
        )
        for rule in ("resized", "flattened", "cropped")
    ),
    Variant("conv", "spatial", "plain convolution", ("model.dyhead.spatial=conv",)),
    Variant("shared", "dynamic ReLU", "shared ReLU", ("model.dyhead.dynamic_relu=shared",)),
)


@dataclass(frozen=True)
class Measured:
    """What a finished row has shown.

    scores: COCO's numbers; None where no ground truth asks for one.
    gmacs: 10^9 multiply-accumulates of the whole detector for one image.
    seconds_per_step: the median over the rows of the run's log.
    """

    scores: dict[str, float | None]
    num_parameters: int
    gmacs: float
    seconds_per_step: float


@dataclass(frozen=True)
class Ablation:
    """The grid on one base run.

    configs: by row; a row whose configuration is refused has none.
    run_of: by row, the first row with the same configuration; runs lie in folders of that name.
    failures: by row, what went wrong; grows as the rows are run.
    """

    base: RunConfig
    configs: dict[str, RunConfig]
    run_of: dict[str, str]
    failures: dict[str, str]
    out: Path
    device: torch.device


def main() -> int:
    """Run what is missing and write the table after every row; 1 if a row failed."""
    options = parse_options()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    ablation = build_ablation(options)
    for name in options.only:
        if name in ablation.configs:
            run_row(ablation, name)
        write_results(ablation)
    failed = [name for name in options.only if name in ablation.failures]
    print(f"{len(options.only) - len(failed)} rows done, {len(failed)} failed -> {options.out}")
    return 1 if failed else 0


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    names = [variant.name for variant in GRID]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path, help="the base: a YAML file with a DyHead")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--steps", type=int, help="length of every run [default: the base's]")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def build_ablation(options: argparse.Namespace) -> Ablation:
    """Resolve the configurations of all rows.

    Raises:
        ConfigError: If the base is wrong or has nothing to ablate or to score.
    """
    length = ("train.epochs=null", f"train.steps={options.steps}") if options.steps else ()
    overrides = (*options.overrides, *length, "train.eval_every_epochs=1000000")
    base = load_config(options.config, overrides)
    if base.model.dyhead is None or base.data.val is None:
        raise ConfigError(f"{options.config}: an ablation needs `model.dyhead` and `data.val`")
    configs, failures = {}, {}
    for variant in GRID:
        try:
            configs[variant.name] = load_config(options.config, (*overrides, *variant.overrides))
        except ConfigError as error:
            failures[variant.name] = str(error)
    run_of = {
        name: next(first for first, other in configs.items() if other == config)
        for name, config in configs.items()
    }
    return Ablation(base, configs, run_of, failures, options.out, choose_device(options.device))


def run_row(ablation: Ablation, name: str) -> None:
    """Train and evaluate a row, unless that is done, and leave `row.json` in its folder."""
    config, folder = ablation.configs[name], ablation.out / ablation.run_of[name]
    logger.info("--- %s: %s", name, folder)
    if read_measured(folder, config) is not None:
        return
    try:
        train(config, folder, device=ablation.device, resume=True)
        measured = measure(config, folder)
    except StoppedError:
        raise
    except Exception as error:  # whatever it is, the other rows go on
        ablation.failures[name] = f"{type(error).__name__}: {error}"
        logger.exception("%s failed", name)
        return
    with written_whole(folder / "row.json") as unfinished:
        unfinished.write_text(json.dumps({"config": to_plain(config), **asdict(measured)}))


def measure(config: RunConfig, folder: Path) -> Measured:
    """Gather what a finished run has shown, and count what it costs."""
    num_classes = len(load_training_data(config.data).categories)
    size_hw = (config.model.input.short_edge, config.model.input.long_edge)
    cost = measure_cost(config.model, num_classes=num_classes, size_hw=size_hw)
    log = read_rows(folder / "metrics.jsonl")
    evaluated = next(row for row in reversed(log) if "AP" in row)
    speeds = [speed for row in log if (speed := row.get("images_per_second"))]
    return Measured(
        scores={name: evaluated[name] for name in SCORES},
        num_parameters=cost.total.num_parameters,
        gmacs=cost.total.gmacs,
        seconds_per_step=config.train.batch_size / statistics.median(speeds),
    )


def read_measured(folder: Path, config: RunConfig) -> Measured | None:
    """Return what a row has shown, if it is finished and was the same run."""
    path = folder / "row.json"
    row = json.loads(path.read_text()) if path.exists() else {}
    if row.pop("config", None) != to_plain(config):
        return None
    return Measured(**row)


# --- table and picture ---------------------------------------------------------------------------


def write_results(ablation: Ablation) -> None:
    """Write table and picture of all the rows that are finished, also by earlier commands."""
    rows: dict[Variant, Measured] = {}
    for variant in GRID:
        if variant.name in ablation.configs:
            folder = ablation.out / ablation.run_of[variant.name]
            measured = read_measured(folder, ablation.configs[variant.name])
            if measured is not None:
                rows[variant] = measured
    ablation.out.mkdir(parents=True, exist_ok=True)
    lines = [describe(ablation), "", *markdown(rows, ablation.run_of)]
    lines += [f"\n{name} failed: {reason}" for name, reason in ablation.failures.items()]
    (ablation.out / "ablation.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_csv(ablation.out / "ablation.csv", rows, ablation.run_of)
    runs = {v: measured for v, measured in rows.items() if ablation.run_of[v.name] == v.name}
    if runs:
        draw(ablation.out / "ablation.png", runs, ablation.base)


def describe(ablation: Ablation) -> str:
    """Say what all rows have in common."""
    base = ablation.base
    model, size = base.model, base.model.input
    length = f"{base.train.steps} steps" if base.train.steps else f"{base.train.epochs} epochs"
    machine = (
        torch.cuda.get_device_name()
        if ablation.device.type == "cuda"
        else f"{torch.get_num_threads()} threads of {platform.machine()}, {os.cpu_count()} CPUs"
    )
    return (
        f"{model.detector.name}, {model.body.name}, {model.channels} channels, {base.data.root}, "
        f"{length} of batch {base.train.batch_size}, seed {base.seed}; images of "
        f"{size.short_edge} x {size.long_edge}; {machine}, torch {torch.__version__}. One run a "
        "row: small differences are noise. GMACs are those of the whole detector for one image."
    )


def markdown(rows: Mapping[Variant, Measured], run_of: Mapping[str, str]) -> list[str]:
    """Format the table; a row that shares its run says whose."""
    lines = [
        "| row | what | AP | AP50 | AP small | AP medium | AP large | million parameters | GMACs "
        "| seconds per step |",
        "|---|---|" + "---:|" * 8,
    ]
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
        lines.append(f"| {' | '.join(cells)} |")
    return lines


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


def draw(path: Path, runs: Mapping[Variant, Measured], base: RunConfig) -> None:
    """Draw AP against cost, one point per run, each with its name beside it."""
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    colors = {group: f"C{i}" for i, group in enumerate(dict.fromkeys(v.group for v in GRID))}
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
    size = base.model.input
    axes.set_xlabel(f"GMACs of the detector for an image of {size.short_edge} x {size.long_edge}")
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


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DyHeadDetError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
