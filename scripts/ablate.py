r"""What each part of DyHead gives and costs: one table over a grid of variants of one run.

    python scripts/ablate.py configs/own_data.yaml --set data.root=mydata \
        --set model.dyhead='{num_blocks: 2}' --steps 500
    python scripts/ablate.py configs/demo.yaml --only plain all stacked

Every row is one run of `dyhead-det train`, a folder of its own, evaluated once at its end. The same
command goes on where it was stopped and skips what is finished; a row that fails is reported and
the others go on. Rows that ask for the same run share it. After every run ablation.md, .csv and
.png are written anew with all the rows that are finished.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ablation_table import Variant, draw, markdown, write_csv
from dyhead_det.config.file import load_config
from dyhead_det.config.schema import RunConfig
from dyhead_det.distributed.device import choose_device
from dyhead_det.errors import ConfigError, DyHeadDetError
from grid_runs import Measured, describe_machine, describe_run, read_measured, run_missing

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
    for own in ("grid_runs", "dyhead_det"):  # other libraries' lines are of no interest
        logging.getLogger(own).setLevel(logging.INFO)
    ablation = build_ablation(options)
    write_results(ablation)
    run_missing(
        needed_runs(ablation, options.only),
        ablation.out,
        device=ablation.device,
        write_results=lambda: write_results(ablation),
        failures=ablation.failures,
    )
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
    overrides = (*options.overrides, *length)
    base = load_config(options.config, overrides)
    if base.model.dyhead is None or base.data.val is None:
        raise ConfigError(
            f"{options.config}: an ablation needs `model.dyhead` and `data.val`; give what is "
            "missing, for instance --set model.dyhead='{num_blocks: 2}'"
        )
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


def needed_runs(ablation: Ablation, names: Sequence[str]) -> dict[str, RunConfig]:
    """Return the runs that these rows need, each once."""
    needed = dict.fromkeys(ablation.run_of[name] for name in names if name in ablation.run_of)
    return {name: ablation.configs[name] for name in needed}


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
    length = f"{base.train.steps} steps" if base.train.steps else f"{base.train.epochs} epochs"
    return (
        f"{base.model.detector.name}, {describe_run(base)}, {length}, seed {base.seed}; "
        f"{describe_machine(ablation.device)}. One run a row: small differences are noise. GMACs "
        "are those of the whole detector for one image."
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DyHeadDetError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
