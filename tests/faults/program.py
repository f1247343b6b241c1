"""Runs of the program that meet with faults, and what is compared afterwards."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from dyhead_det.checkpoints.checkpoint import load_checkpoint
from dyhead_det.config.file import to_yaml
from dyhead_det.reporting.metrics_file import read_rows

from conftest import draw_tiny_dataset, make_config

# They tell of the machine, not of the training.
VARYING = ("images_per_second", "data_share", "memory_gib")


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it wrote to stdout and stderr."""

    code: int
    text: str

    @property
    def error(self) -> str:
        """The one line that tells what is wrong."""
        (line,) = [line for line in self.text.splitlines() if line.startswith("error: ")]
        return line


class Project:
    """A data set, a configuration, and a process that runs the program on them.

    The run of eight steps has all that a checkpoint must hold: a moving average, a gradient scaler,
    patience, random augmentation and sizes, and epochs of three steps.
    """

    def __init__(self, folder: Path, process: subprocess.Popen) -> None:
        self.folder = folder
        self.data = draw_tiny_dataset(folder / "data", num_images=5)
        _make_last_rare(self.data / "train.json")
        self.config = self.folder / "config.yaml"
        self._process = process
        config = make_config(
            self.data,
            data={"augment": {"photometric": True}},
            model={"input": {"multi_scale": [48, 64]}},
            optim={"clip_norm": 1.0},
            train={
                "steps": 8,
                "amp": "fp16",
                "ema": {},
                "early_stopping": {"patience": 9},
                "save_every_steps": 2,
            },
        )
        self.config.write_text(to_yaml(config), encoding="utf-8")

    def train(
        self,
        out: Path,
        *settings: str,
        resume: bool = False,
        fault: str | None = None,
        **options: int | str,
    ) -> Outcome:
        """Train in a new process, with a fault from `injections` and `key=value` settings."""
        arguments = ["train", self.config, "--out", out, "--device", "cpu"]
        arguments += ["--resume"] * resume
        for setting in settings:
            arguments += ["--set", setting]
        return self.run(*arguments, fault=fault, **options)

    def run(
        self, *arguments: object, fault: str | None = None, **options: int | str | None
    ) -> Outcome:
        """Run a command in a new process, with a fault from `injections`."""
        output = self.folder / "output.txt"
        order = {
            "arguments": [str(argument) for argument in arguments],
            "fault": fault,
            "options": options,
            "output": str(output),
        }
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        code = json.loads(self._process.stdout.readline())
        return Outcome(code, output.read_text(encoding="utf-8"))

    def image(self, index: int) -> Path:
        """One of the five image files."""
        return self.data / "images" / f"{index}.png"


@contextmanager
def built_project(folder: Path) -> Iterator[Project]:
    """Start a process that imports everything once, and end it."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("forking_program.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Threads would not live on in a fork.
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    with process:
        yield Project(folder, process)
        process.stdin.close()


def contents(path: Path) -> object:
    """All that a checkpoint holds, comparable to the last bit."""
    checkpoint = load_checkpoint(path)
    return _comparable([checkpoint.model, checkpoint.step, checkpoint.metrics, checkpoint.training])


def rows_of(run: Path) -> list[dict]:
    """The rows of metrics.jsonl, without what varies; there must be no half line."""
    rows = read_rows(run / "metrics.jsonl")
    assert len(rows) == len((run / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in row.items() if key not in VARYING} for row in rows]


def assert_same_run(run: Path, reference: Path) -> None:
    """Compare all that a run leaves for others to build on."""
    for name in ("last.pt", "best.pt"):
        assert contents(run / name) == contents(reference / name), name
    assert rows_of(run) == rows_of(reference)
    assert not list(run.glob(".*.unfinished"))


def _make_last_rare(annotations: Path) -> None:
    """Let the object of the last image be the only one of its class."""
    document = json.loads(annotations.read_text(encoding="utf-8"))
    document["annotations"][-1]["category_id"] = document["categories"][1]["id"]
    annotations.write_text(json.dumps(document), encoding="utf-8")


def _comparable(value: object) -> object:
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), value.contiguous().numpy().tobytes()
    if isinstance(value, dict):
        return {key: _comparable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_comparable(inner) for inner in value]
    return value
