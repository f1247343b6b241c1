"""What COCO and Objects365 take on 1, 8 and 64 GPUs, on paper: the tables of docs/scale.md.

    python scripts/scale_table.py
    python scripts/scale_table.py --peak-tflops 989 --share 0.3 --batch-per-gpu 4

Every figure that goes in is an option, whose help says where its default is from. Nothing is
measured here.
"""

import argparse
import sys
from collections.abc import Iterator

from measuring import markdown

GPUS = (1, 8, 64)
# Images to train and to validate on, million boxes to train on.
DATA_SETS = {"COCO": (118_287, 5_000, 0.86), "Objects365": (1_740_000, 80_000, 25.0)}
# Gigabytes a second that leave a machine, or a GPU where there is only one machine.
LINKS = {"NVLink, 300 GB/s": 300.0, "PCIe 4.0, 32 GB/s": 32.0}
NETWORKS = {"200 Gbit/s": 25.0, "25 Gbit/s": 3.1}

MINUTES_BETWEEN_SAVES = 10  # the default of train.save_every_minutes

# Defaults and their sources.
FIGURES = {
    "gmacs": (272.4, "multiplications of an image, 10^9, by `dyhead-det info`"),
    "parameters": (38.85, "10^6, by `dyhead-det info`"),
    "peak-tflops": (312.0, "of a GPU: A100 in bfloat16, by its maker"),
    "share": (0.2, "of the peak that is reached: assumed"),
    "batch-per-gpu": (2, "images: the usual 16 on 8 GPUs"),
    "epochs": (12, "the usual schedule"),
    "loader-ms": (6.9, "CPU milliseconds of the loader per image: measured, docs/speed.md"),
    "image-kb": (166, "kilobytes of an image: measured, COCO photographs"),
    "optimizer-states": (2, "numbers of the optimizer per weight: AdamW 2, SGD with momentum 1"),
    "score-ms": (1.3, "milliseconds to score an image of 100 detections: measured, docs/speed.md"),
    "detection-bytes": (460, "of a detection in the memory of rank 0: measured"),
    "read-gb": (1.1, "peak gigabytes per million boxes while they are read: measured"),
    "keep-gb": (0.06, "gigabytes per million boxes from then on: measured"),
    "read-seconds": (6.0, "CPU seconds per million boxes: measured"),
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, (value, help_text) in FIGURES.items():
        parser.add_argument(f"--{name}", type=float, default=value, help=f"{help_text} [{value:g}]")
    given = parser.parse_args()
    sys.stdout.write("\n\n".join("\n".join(table) for table in tables(given)) + "\n")


def tables(given: argparse.Namespace) -> Iterator[list[str]]:
    """Yield steps, all-reduce, and data sets as Markdown."""
    yield steps_table(given)
    yield reduce_table(given)
    yield data_table(given)


def seconds_per_image(given: argparse.Namespace, *, passes: int) -> float:
    """Return what an image takes on a GPU; forward is one pass, backward two more."""
    flops = passes * 2 * given.gmacs * 1e9
    return float(flops / (given.peak_tflops * 1e12 * given.share))


def images_per_second(given: argparse.Namespace, num_gpus: int) -> float:
    """Return what all GPUs train on, where nothing else holds them up."""
    return num_gpus / seconds_per_image(given, passes=3)


def steps_table(given: argparse.Namespace) -> list[str]:
    """Return time, data and length of training by the number of GPUs."""
    step_ms = 1000 * given.batch_per_gpu * seconds_per_image(given, passes=3)
    rows = []
    for num_gpus in GPUS:
        speed = images_per_second(given, num_gpus)
        rows.append(
            [
                f"{num_gpus}",
                f"{num_gpus * given.batch_per_gpu:.0f}",
                f"{step_ms:.0f}",
                f"{speed:.0f}",
                f"{speed * given.loader_ms / 1000:.1f}",
                f"{speed * given.image_kb / 1000:.0f}",
                *(
                    f"{given.epochs * num_train / speed / 3600:.1f}"
                    for num_train, _, _ in DATA_SETS.values()
                ),
            ]
        )
    hours = [f"hours of {given.epochs:g} epochs of {name}" for name in DATA_SETS]
    columns = ["GPUs", "batch", "ms a step", "images/s", "loader cores", "MB/s read", *hours]
    return markdown(columns, rows)


def reduce_table(given: argparse.Namespace) -> list[str]:
    """Return what the all-reduce of the gradients in float32 sends, and how long that takes."""
    backward_ms = 1000 * given.batch_per_gpu * seconds_per_image(given, passes=2)
    rows = []
    for num_gpus in GPUS[1:]:
        megabytes = given.parameters * 4 * 2 * (num_gpus - 1) / num_gpus
        links = LINKS if num_gpus <= 8 else NETWORKS
        for link, speed in links.items():
            milliseconds = megabytes / speed  # MB / (GB/s)
            hidden = "yes" if milliseconds < backward_ms else "no"
            rows.append([f"{num_gpus}", link, f"{megabytes:.0f}", f"{milliseconds:.1f}", hidden])
    columns = ["GPUs", "link", "MB a step", "ms", f"within backward ({backward_ms:.0f} ms)"]
    return markdown(columns, rows)


def data_table(given: argparse.Namespace) -> list[str]:
    """Return what each data set takes besides its steps."""
    weights_mb = given.parameters * 4
    last_mb = weights_mb * (1 + given.optimizer_states)
    forward = seconds_per_image(given, passes=1)
    rows: dict[str, list[str]] = {}
    for num_train, num_val, million_boxes in DATA_SETS.values():
        epoch_minutes = num_train / images_per_second(given, 8) / 60
        num_saves = 2 + epoch_minutes / MINUTES_BETWEEN_SAVES
        on_gpus = ", ".join(f"{num_val * forward / num_gpus:.0f}" for num_gpus in GPUS)
        detections_gb = num_val * 100 * given.detection_bytes / 1e9
        for name, text in {
            "`best.pt`": f"{weights_mb:.0f} MB",
            "`last.pt` (with `train.ema`)": f"{last_mb:.0f} MB ({last_mb + weights_mb:.0f} MB)",
            "`last.pt` written an epoch on 8 GPUs": f"{num_saves:.0f} times, "
            f"{num_saves * last_mb / 1000:.1f} GB",
            "evaluation: detection on 1, 8, 64 GPUs": f"{on_gpus} s",
            "evaluation: scoring on rank 0": f"{num_val * given.score_ms / 1000:.0f} s",
            "evaluation: detections on rank 0": f"{detections_gb:.1f} GB",
            "annotations read, by each rank": f"{million_boxes * given.read_seconds:.0f} s, "
            f"peak {million_boxes * given.read_gb:.1f} GB",
            "annotations kept, by each rank": f"{million_boxes * given.keep_gb:.2f} GB",
        }.items():
            rows.setdefault(name, []).append(text)
    return markdown(["", *DATA_SETS], [[name, *texts] for name, texts in rows.items()])


if __name__ == "__main__":
    main()
