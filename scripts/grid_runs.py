"""Runs of a grid: each is trained and scored once, whatever the number of commands and of stops."""

import json
import logging
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import ValidationError

from dyhead_det.config.schema import RunConfig, parse_config, to_plain
from dyhead_det.data.build_datasets import load_training_data, load_validation_data
from dyhead_det.errors import StoppedError
from dyhead_det.files import written_whole
from dyhead_det.models.cost import measure_cost
from dyhead_det.prediction.evaluate_checkpoint import evaluate_checkpoint
from dyhead_det.reporting.metrics_file import read_rows
from dyhead_det.reporting.progress import format_duration
from dyhead_det.training.run_folder import load_last
from dyhead_det.training.train import train

logger = logging.getLogger(__name__)

SCORES = ("AP", "AP50", "APs", "APm", "APl")


@dataclass(frozen=True)
class Measured:
    """What a finished run has shown.

    scores: COCO's numbers; None where no ground truth asks for one.
    gmacs: 10^9 multiply-accumulates of the whole detector for one image.
    seconds_per_step: the median over the rows of the run's log.
    cpu_seconds_per_step: of the process and its workers; None where none of its steps was seen.
    """

    scores: dict[str, float | None]
    num_parameters: int
    gmacs: float
    seconds_per_step: float
    cpu_seconds_per_step: float | None = None


def run_missing(
    runs: Mapping[str, RunConfig],
    out: Path,
    *,
    device: torch.device,
    write_results: Callable[[], None],
    failures: dict[str, str],
) -> None:
    """Train and score the runs that are not finished, in folders of their names.

    Args:
        runs: By name, with validation data.
        out: Where the folders lie.
        device: Where to run.
        write_results: Called after every run.
        failures: By name, what went wrong; grows as the runs are done, the others go on.
    """
    to_do = [name for name in runs if read_measured(out / name, runs[name]) is None]
    started_at = time.monotonic()
    for num_done, name in enumerate(to_do):
        left = ""
        if num_done:
            seconds = (time.monotonic() - started_at) / num_done * (len(to_do) - num_done)
            left = f", about {format_duration(seconds)} left for all"
        logger.info("--- run %d of %d: %s%s", num_done + 1, len(to_do), name, left)
        try:
            train_and_score(runs[name], out / name, device)
        except StoppedError:
            raise
        except Exception as error:  # whatever it is, the other runs go on
            failures[name] = f"{type(error).__name__}: {error}"
            logger.exception("%s failed", name)
        write_results()


def train_and_score(config: RunConfig, folder: Path, device: torch.device) -> None:
    """Train from where it was stopped, score the last weights, and leave what was measured.

    Besides the run's own files the folder gets metrics.json, detections.json, ground_truth.json and
    row.json. Nothing is scored on the way, so that a run's time is that of its steps.
    """
    scored_on = load_validation_data(config.data)
    if scored_on is None:
        raise ValueError("a run of a grid needs validation data")
    checkpoint = load_last(folder)
    first_step = 0 if checkpoint is None else checkpoint.step
    seconds_before = cpu_seconds()
    result = train(without_scoring(config), folder, device=device, resume=True)
    num_steps = result.num_steps - first_step
    cpu_per_step = (cpu_seconds() - seconds_before) / num_steps if num_steps else None
    ground_truth = folder / "ground_truth.json"
    with written_whole(ground_truth) as unfinished:
        unfinished.write_text(json.dumps(scored_on.ground_truth()), encoding="utf-8")
    scored = evaluate_checkpoint(
        folder / "last.pt",
        folder,
        data=ground_truth,
        images=scored_on.images.location,
        backend=None,
        batch_size=None,
        max_detections=None,
        short_edge=None,
        long_edge=None,
        device=device,
    )
    size_hw = (config.model.input.short_edge, config.model.input.long_edge)
    num_classes = len(load_training_data(config.data).categories)
    cost = measure_cost(config.model, num_classes=num_classes, size_hw=size_hw)
    log = read_rows(folder / "metrics.jsonl")
    speeds = [speed for row in log if (speed := row.get("images_per_second"))]
    measured = Measured(
        scores={name: scored.metrics[name] for name in SCORES},
        num_parameters=cost.total.num_parameters,
        gmacs=cost.total.gmacs,
        seconds_per_step=config.train.batch_size / statistics.median(speeds),
        cpu_seconds_per_step=cpu_per_step,
    )
    with written_whole(folder / "row.json") as unfinished:
        unfinished.write_text(json.dumps({"config": to_plain(config), **asdict(measured)}))


def without_scoring(config: RunConfig) -> RunConfig:
    """Return the same run as one that is scored by others."""
    data = config.data.model_copy(update={"val": None})
    training = config.train.model_copy(update={"early_stopping": None})
    return config.model_copy(update={"data": data, "train": training})


def cpu_seconds() -> float:
    """Return the CPU time of this process and of its workers that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def read_measured(folder: Path, config: RunConfig) -> Measured | None:
    """Return what a run has shown, if it is finished and was the same run.

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


def describe_machine(device: torch.device) -> str:
    """Say on what the times were taken."""
    machine = (
        torch.cuda.get_device_name()
        if device.type == "cuda"
        else f"{torch.get_num_threads()} threads of {platform.machine()}, {os.cpu_count()} CPUs"
    )
    return f"{machine}, torch {torch.__version__}"


def describe_run(config: RunConfig) -> str:
    """Say what the runs of a grid have in common."""
    size = config.model.input
    return (
        f"{config.model.backbone.name}, {config.model.channels} channels, {config.data.root}, "
        f"batch {config.train.batch_size}, images of {size.short_edge} x {size.long_edge}"
    )
