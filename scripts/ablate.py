"""What each part of DyHead gives and costs: one table over a grid of variants of one run.

    python scripts/ablate.py configs/own_data.yaml --set data.root=mydata --steps 500
    python scripts/ablate.py configs/own_data.yaml --set data.root=mydata --only plain all stacked

Every row is one run of `dyhead-det train`, a folder of its own, evaluated once at its end. The same
command goes on where it was stopped and skips what is finished; a row that fails is reported and
the others go on. Rows that ask for the same run share it. After every run ablation.md, .csv and
.png are written anew with all the rows that are finished.
"""

import argparse
import json
import logging
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import ValidationError

from ablation_table import SCORES, Measured, Variant, draw, markdown, write_csv
from dyhead_det.config.file import load_config
from dyhead_det.config.schema import RunConfig, parse_config, to_plain
from dyhead_det.data.build_datasets import load_training_data
from dyhead_det.distributed.device import choose_device
from dyhead_det.errors import ConfigError, DyHeadDetError, StoppedError
from dyhead_det.files import written_whole
from dyhead_det.models.cost import measure_cost
from dyhead_det.reporting.metrics_file import read_rows
from dyhead_det.reporting.progress import format_duration
from dyhead_det.training.train import train

logger = logging.getLogger("ablate")

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
    """Run what is missing and write the table after every run; 1 if a row failed."""
    options = parse_options()
    logging.basicConfig(format="%(message)s")
    for own in ("ablate", "dyhead_det"):  # other libraries' lines are of no interest
        logging.getLogger(own).setLevel(logging.INFO)
    ablation = build_ablation(options)
    write_results(ablation)
    to_do = missing_runs(ablation, options.only)
    started_at = time.monotonic()
    for num_done, name in enumerate(to_do):
        left = ""
        if num_done:
            seconds = (time.monotonic() - started_at) / num_done * (len(to_do) - num_done)
            left = f", about {format_duration(seconds)} left for all"
        logger.info("--- run %d of %d: %s%s", num_done + 1, len(to_do), name, left)
        run_row(ablation, name)
        write_results(ablation)
    failed = [name for name in options.only if ablation.run_of.get(name, name) in ablation.failures]
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


def missing_runs(ablation: Ablation, names: Sequence[str]) -> list[str]:
    """Return the runs that these rows need and that are not finished, each once."""
    needed = dict.fromkeys(ablation.run_of[name] for name in names if name in ablation.run_of)
    return [
        name
        for name in needed
        if read_measured(ablation.out / name, ablation.configs[name]) is None
    ]


def run_row(ablation: Ablation, name: str) -> None:
    """Train and evaluate a row and leave `row.json` in its folder."""
    config, folder = ablation.configs[name], ablation.out / name
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
    """Return what a row has shown, if it is finished and was the same run.

    Keys that the configuration has got since are taken to have had their defaults.
    """
    path = folder / "row.json"
    if not path.exists():
        return None
    row = json.loads(path.read_text())
    try:
        was = parse_config(row.pop("config"))
    except ValidationError:  # a key that is no more
        return None
    return Measured(**row) if was == config else None


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
        size = ablation.base.model.input
        draw(ablation.out / "ablation.png", runs, size_hw=(size.short_edge, size.long_edge))


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
        f"{model.detector.name}, {model.backbone.name}, {model.channels} channels, "
        f"{base.data.root}, {length} of batch {base.train.batch_size}, seed {base.seed}; images of "
        f"{size.short_edge} x {size.long_edge}; {machine}, torch {torch.__version__}. One run a "
        "row: small differences are noise. GMACs are those of the whole detector for one image."
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DyHeadDetError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
