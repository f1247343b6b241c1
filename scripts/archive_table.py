"""Many small images as files and in archives: start-up, images per second, memory of the loader."""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from made_data import draw_small_images
from measuring import markdown

NUM_ARCHIVES = 16


def archive_table(options: argparse.Namespace) -> list[str]:
    """Let the loader read the same images from a folder and from archives."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_small_images(folder, options.archives)
        pack(folder)
        pattern = folder / f"images-{{00..{NUM_ARCHIVES - 1}}}.tar"
        places = {
            "a folder of files": str(folder / "images"),
            f"{NUM_ARCHIVES} archives, read for the first time": str(pattern),
            f"{NUM_ARCHIVES} archives, index kept": str(pattern),
        }
        told: dict[str, list[list[float]]] = {title: [] for title in places}
        environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
        script = str(Path(__file__).with_name("read_images.py"))
        for _ in range(options.rounds):
            shutil.rmtree(folder / "cache", ignore_errors=True)
            for title, place in places.items():
                command = [sys.executable, script, str(folder / "train.json"), place]
                command += [str(options.workers), str(options.batch_size)]
                answer = subprocess.run(
                    command, check=True, stdout=subprocess.PIPE, text=True, env=environment
                ).stdout
                told[title].append(json.loads(answer))
    rows = []
    for title, each in told.items():
        seconds, cpu_seconds, speed, cpu_ms, mib = map(statistics.median, zip(*each, strict=True))
        rows.append(
            [
                title,
                f"{seconds:.1f} ({cpu_seconds:.1f})",
                f"{speed:.0f}",
                f"{cpu_ms:.2f}",
                f"{mib:.0f}",
            ]
        )
    columns = ["s to first batch (CPU)", "images/s", "CPU ms per image", "peak MiB"]
    return markdown([f"{options.archives} images of 64 pixels", *columns], rows)


def pack(folder: Path) -> None:
    """Put the images of a folder into archives, in turn."""
    paths = sorted((folder / "images").iterdir())
    for number in range(NUM_ARCHIVES):
        with tarfile.open(folder / f"images-{number:02}.tar", "w") as archive:
            for path in paths[number::NUM_ARCHIVES]:
                archive.add(path, path.name)
                archive.members = []  # it would keep them all
