r"""From how many steps, and from how much time, does a head pay? Detectors x heads x steps x seeds.

    python scripts/learning_curves.py configs/own_data.yaml --set data.root=mydata
    python scripts/learning_curves.py configs/own_data.yaml --set data.root=mydata \
        --detectors atss fasterrcnn --steps 250 500 1000 --seeds 0 1 2 \
        --head plain model.dyhead=null --head blocks-4 model.dyhead='{num_blocks: 4}'

The first head is what the others are compared with. Runs with the same seed see the same images in
the same order. ATSS without DyHead gets four tower convolutions, if a head says nothing else. A
fifth of the training images is held out and scored, so that what is chosen by these curves can be
reported on `data.val`, which is scored only by --report, with all the training images trained on.
The same command goes on where it was stopped; after every run curves.md, .csv and .png are written
anew.
"""

import argparse
import functools
import json
import logging
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch

from curve_table import Curves, Point, draw, markdown, write_csv
from dyhead_det.config.file import load_config
from dyhead_det.config.schema import FasterRCNNConfig, RunConfig
from dyhead_det.data.build_datasets import load_training_data, load_validation_data
from dyhead_det.data.stores.locate import location_text
from dyhead_det.distributed.device import choose_device
from dyhead_det.errors import ConfigError, DyHeadDetError
from dyhead_det.evaluation.bootstrap import average_precisions, match_detections, resample_images
from dyhead_det.files import written_whole
from grid_runs import describe_machine, describe_run, read_measured, run_missing

logger = logging.getLogger("learning_curves")

NUM_RESAMPLES = 1000
HELD_OUT = 0.2

WITHOUT_DYHEAD = ("model.dyhead=null",)
# For a pyramid with norms, as `own_data` has it.
WITH_DYHEAD = ("model.dyhead={num_blocks: 2, residual_scale: 3}", "optim.offset_lr_factor=0.2")
DETECTORS = ("fasterrcnn", "retinanet", "fcos", "atss")


@dataclass(frozen=True)
class Grid:
    """All runs, by name and by what they are.

    ground_truth: what all of them are scored on, as a COCO file.
    """

    base: RunConfig
    heads: tuple[str, ...]
    points: dict[Point, str]
    runs: dict[str, RunConfig]
    ground_truth: Path
    out: Path
    device: torch.device


def main() -> int:
    """Run what is missing and write the curves after every run; 1 if a run failed."""
    options = parse_options()
    logging.basicConfig(format="%(message)s")
    for own in ("learning_curves", "grid_runs", "dyhead_det"):
        logging.getLogger(own).setLevel(logging.INFO)
    grid = build_grid(options)
    failures: dict[str, str] = {}
    write_results(grid, failures)
    run_missing(
        grid.runs,
        grid.out,
        device=grid.device,
        write_results=lambda: write_results(grid, failures),
        failures=failures,
    )
    print(f"{len(grid.runs) - len(failures)} runs done, {len(failures)} failed -> {grid.out}")
    return 1 if failures else 0


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path, help="the base: a YAML file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--detectors", nargs="+", choices=DETECTORS, help="[default: the base's]")
    parser.add_argument(
        "--head",
        action="append",
        nargs="+",
        metavar=("NAME", "KEY=VALUE"),
        help="a head and its settings; the first is compared with [default: plain, dyhead]",
    )
    parser.add_argument("--steps", nargs="+", type=int, default=[250, 500])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--report", action="store_true", help="train on all, score on data.val")
    parser.add_argument("--out", type=Path, default=Path("runs/curves"))
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def build_grid(options: argparse.Namespace) -> Grid:
    """Resolve the configurations of all runs, the first seed's first.

    Raises:
        ConfigError: If one of them is refused, or there is nothing to score on.
    """
    base = load_config(options.config, tuple(options.overrides))
    out = options.out / ("report" if options.report else "choice")
    parts = () if options.report else hold_out(base, out)
    heads = {name: tuple(settings) for name, *settings in options.head or default_heads(base)}
    points, runs = {}, {}
    for seed, steps, detector, head in product(
        options.seeds, options.steps, options.detectors or [base.model.detector.name], heads
    ):
        name = f"{detector}-{head}-{steps}-seed{seed}"
        config = load_config(
            options.config,
            (
                *options.overrides,
                *parts,
                *detector_settings(base, detector),
                *head_settings(detector, heads[head]),
                f"seed={seed}",
                "train.epochs=null",
                f"train.steps={steps}",
            ),
        )
        if config.data.val is None:
            raise ConfigError(f"{options.config}: --report needs `data.val` to score on")
        runs[name] = config
        points[Point(detector, head, steps, seed)] = name
    ground_truth = out / "ground_truth.json"
    scored = load_validation_data(next(iter(runs.values())).data)
    write_json(ground_truth, {} if scored is None else scored.ground_truth())
    return Grid(base, tuple(heads), points, runs, ground_truth, out, choose_device(options.device))


def default_heads(base: RunConfig) -> list[list[str]]:
    """Compare DyHead, the base's or two blocks, with none."""
    settings = WITH_DYHEAD if base.model.dyhead is None else ()
    return [["plain", *WITHOUT_DYHEAD], ["dyhead", *settings]]


def head_settings(detector: str, settings: tuple[str, ...]) -> tuple[str, ...]:
    """Give ATSS, where it has no DyHead and nothing else is asked for, what DyHead replaces."""
    if settings == WITHOUT_DYHEAD and detector == "atss":
        return (*settings, "model.detector.num_tower_convs=4")
    return settings


def detector_settings(base: RunConfig, detector: str) -> tuple[str, ...]:
    """Put another detector in place of the base's, with anchors of the same sizes."""
    own = base.model.detector
    if detector == own.name:
        return ()
    section: dict[str, object] = {"name": detector}
    if isinstance(own, FasterRCNNConfig) and detector == "retinanet":
        section["anchor_sizes"] = [
            [round(size * 2 ** (third / 3), 2) for size in level for third in range(3)]
            for level in own.anchor_sizes
        ]
    return (f"model.detector={json.dumps(section)}",)


def hold_out(base: RunConfig, out: Path) -> tuple[str, ...]:
    """Split the training images, the same way every time; return the settings for the parts."""
    everything = base.data.model_copy(update={"val": None, "empty_images": "keep"})
    dataset = load_training_data(everything)
    document = dataset.ground_truth()
    images = sorted(document["images"], key=lambda image: image["id"])
    order = np.random.default_rng(0).permutation(len(images))
    num_held_out = max(1, round(HELD_OUT * len(images)))
    settings = ["data.format=coco"]
    for name, chosen in (("val", order[:num_held_out]), ("train", order[num_held_out:])):
        kept = [images[index] for index in sorted(chosen)]
        ids = {image["id"] for image in kept}
        part = {
            **document,
            "images": kept,
            "annotations": [a for a in document["annotations"] if a["image_id"] in ids],
        }
        file = (out / f"{name}.json").resolve()
        write_json(file, part)
        split = {"annotations": str(file), "images": location_text(dataset.images.location)}
        settings.append(f"data.{name}={json.dumps(split)}")
    return tuple(settings)


def write_json(file: Path, content: dict[str, object]) -> None:
    """Write a file whole, in a folder that may not be there yet."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(file) as unfinished:
        unfinished.write_text(json.dumps(content), encoding="utf-8")


def write_results(grid: Grid, failures: dict[str, str]) -> None:
    """Write table and picture of all the runs that are finished, also by earlier commands."""
    measured = {
        point: found
        for point, name in grid.points.items()
        if (found := read_measured(grid.out / name, grid.runs[name])) is not None
    }
    resampled = {
        point: resampled_ap(grid.ground_truth, grid.out / grid.points[point] / "detections.json")
        for point in measured
    }
    curves = Curves(grid.heads, measured, resampled)
    grid.out.mkdir(parents=True, exist_ok=True)
    lines = [describe(grid), "", *markdown(curves)]
    lines += [f"\n{name} failed: {reason}" for name, reason in failures.items()]
    (grid.out / "curves.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_csv(grid.out / "curves.csv", curves)
    if measured:
        draw(grid.out / "curves.png", curves)


@functools.cache
def resampled_ap(ground_truth: Path, detections: Path) -> np.ndarray:
    """Return AP on the same resamples of the images for every run, (NUM_RESAMPLES,)."""
    truth = json.loads(ground_truth.read_text(encoding="utf-8"))
    classes = match_detections(truth, json.loads(detections.read_text(encoding="utf-8")))
    counts = resample_images(len(truth["images"]), NUM_RESAMPLES, seed=0)
    return average_precisions(classes, counts).mean(axis=1)


def describe(grid: Grid) -> str:
    """Say what all runs have in common and what the numbers are."""
    config = next(iter(grid.runs.values()))
    truth = json.loads(grid.ground_truth.read_text(encoding="utf-8"))
    num_train = len(load_training_data(config.data))
    scored = "held out" if grid.out.name == "choice" else "of data.val"
    return (
        f"{describe_run(grid.base)}; trained on {num_train} images, scored on "
        f"{len(truth['images'])} {scored}; {describe_machine(grid.device)}. AP is the mean over "
        f"seeds, in brackets the lowest and the highest. A difference is to `{grid.heads[0]}` with "
        f"the same seeds; its 95 % intervals are of {NUM_RESAMPLES} paired resamples of the "
        "images, and of images and seeds together (which few seeds make too narrow)."
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DyHeadDetError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
