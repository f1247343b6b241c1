"""How long a command takes before it works, and `predict` on one image against the bare minimum.

    python scripts/bench_startup.py --quick

The bare minimum of a prediction: Python starts, imports torch, reads the file of weights and runs
the detector once. What it takes besides to have a detector (importing torchvision, building it) is
not counted in it, nor drawing and writing; `predict` has to do all of that. With --quick only the
small detector predicts. Writes bench_startup.md and bench_startup.png.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dyhead_det.checkpoints.checkpoint import Checkpoint, save_checkpoint
from dyhead_det.config.file import load_config
from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.models.detectors import build_detector
from measuring import (
    Cost,
    cost_of,
    draw_bars,
    machine,
    markdown,
    median_cost,
    median_costs,
    option_parser,
    parse,
    report,
)

CONFIGS = Path(__file__).parents[1] / "configs"

MINIMUM = "bare minimum"
PREDICT = "`predict`"

# Run in a Python of its own; prints the seconds of the clock and of the CPU that count.
BARE_MINIMUM = """
import json, sys, time

def now():
    return time.perf_counter(), time.process_time()

def add(before):
    total[:] = [sum_ + after - b for sum_, after, b in zip(total, now(), before)]

total = [0.0, 0.0]
before = now()
import torch
add(before)
from dyhead_det import load
from dyhead_det.prediction.images import as_image
detector, image = load(sys.argv[1]).detector, as_image(sys.argv[2])
before = now()
torch.load(sys.argv[1], weights_only=True)
add(before)
before = now()
with torch.no_grad():
    detector([image.float() / 255])
add(before)
print(json.dumps(total))
"""


def main() -> None:
    """Measure both, and write tables and picture."""
    options = parse(option_parser(__doc__))
    started = start_costs(options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        predicted = {
            f"`{name}.yaml`": predict_costs(name, Path(folder), options.rounds)
            for name in (["demo"] if options.quick else ["demo", "retinanet_r50_dyhead"])
        }
    title = (
        f"# Start-up\n\n{machine()}; {torch.get_num_threads()} threads; medians of "
        f"{options.rounds} interleaved rounds\n"
    )
    lines = [title, *start_table(started), "", *predict_table(predicted)]
    report(lines, options.out / "bench_startup.md")
    groups = {"start": started, **predicted}
    draw_bars(
        {
            group: {name: cost.seconds for name, cost in costs.items()}
            for group, costs in groups.items()
        },
        "seconds",
        options.out / "bench_startup.png",
    )


def start_costs(rounds: int) -> dict[str, Cost]:
    """Time `--help` beside an empty program and the import of torch."""
    commands = {
        "`python -c pass`": ["-c", "pass"],
        "`dyhead-det --help`": ["-m", "dyhead_det", "--help"],
        "`dyhead-det predict --help`": ["-m", "dyhead_det", "predict", "--help"],
        "`import torch`": ["-c", "import torch"],
        "`import torchvision`": ["-c", "import torchvision"],
    }
    return median_costs({name: partial(python, *each) for name, each in commands.items()}, rounds)


def start_table(costs: Mapping[str, Cost]) -> list[str]:
    """Lay out what starting takes."""
    rows = [
        [name, f"{cost.seconds:.2f}", f"{cost.cpu_seconds:.2f}"] for name, cost in costs.items()
    ]
    return markdown(["", "s", "CPU s"], rows)


def predict_costs(name: str, folder: Path, rounds: int) -> dict[str, Cost]:
    """Time `predict` on one image beside the bare minimum, for one shipped configuration."""
    image = folder / "image.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)).save(image)
    checkpoint = write_checkpoint(name, folder)
    pairs = [
        (
            bare_minimum(checkpoint, image),
            cost_of(partial(predict, checkpoint, image, folder / "out")),
        )
        for _ in range(rounds)
    ]
    minimum, predicted = (median_cost(each) for each in zip(*pairs, strict=True))
    return {MINIMUM: minimum, PREDICT: predicted}


def predict_table(costs: Mapping[str, Mapping[str, Cost]]) -> list[str]:
    """Lay out what predicting takes, by configuration."""
    rows = [
        [
            name,
            *(f"{cost.seconds:.2f} ({cost.cpu_seconds:.2f})" for cost in each.values()),
            f"{each[PREDICT].seconds / each[MINIMUM].seconds:.2f}",
            f"{each[PREDICT].cpu_seconds / each[MINIMUM].cpu_seconds:.2f}",
        ]
        for name, each in costs.items()
    ]
    columns = ["one image of 640 x 480", f"{MINIMUM} s (CPU)", f"{PREDICT} s (CPU)"]
    return markdown([*columns, "ratio", "CPU ratio"], rows)


def bare_minimum(checkpoint: Path, image: Path) -> Cost:
    """Return what import, weights and forward take, and an empty program besides."""
    empty = cost_of(partial(python, "-c", "pass"))
    seconds, cpu_seconds = json.loads(python("-c", BARE_MINIMUM, str(checkpoint), str(image)))
    return Cost(empty.seconds + seconds, empty.cpu_seconds + cpu_seconds)


def predict(checkpoint: Path, image: Path, out: Path) -> None:
    """Run the command as a person would."""
    python("-m", "dyhead_det", "predict", str(checkpoint), str(image), "--out", str(out))


def python(*arguments: str) -> str:
    """Run a Python of its own and return what it prints."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def write_checkpoint(name: str, folder: Path) -> Path:
    """Save a detector of a shipped configuration with random weights."""
    config = load_config(CONFIGS / f"{name}.yaml")
    categories = CategoryMap(tuple(Category(f"class {i}", i) for i in range(1, 81)))
    detector = build_detector(config.model, num_classes=80, load_backbone_weights=False)
    path = folder / f"{name}.pt"
    save_checkpoint(path, Checkpoint(config, categories, detector.state_dict(), 0, {}))
    return path


if __name__ == "__main__":
    main()
