"""One pass of a loader over images in a place, in a Python of its own: start-up, speed, memory.

    python scripts/read_images.py train.json PLACE WORKERS BATCH_SIZE

Prints as JSON the seconds from the annotations to the first batch, by the clock and on the CPU;
from there on images per second, and CPU milliseconds per image of all processes; and the peak MiB
of this one.
"""

import json
import os
import sys
import time
from pathlib import Path

import torch

from dyhead_det.benchmark.machine import status_mib
from dyhead_det.data.coco.dataset import load_coco, require_images
from dyhead_det.data.detection_dataset import DetectionDataset
from dyhead_det.data.loaders import LoaderOptions, build_train_loader
from dyhead_det.data.stores.locate import image_location


def main(annotations: str, place: str, num_workers: str, batch_size: str) -> None:
    """Read every image once, in the order of a training epoch."""
    torch.set_num_threads(1)
    started_at, cpu_before = time.perf_counter(), time.process_time()
    dataset = load_coco(Path(annotations), image_location(place), split="train")
    require_images(dataset)
    options = LoaderOptions(
        num_workers=int(num_workers),
        prefetch_factor=2,
        persistent_workers=False,
        pin_memory=False,
        broken_images="error",
    )
    loader = build_train_loader(
        DetectionDataset(dataset), options, batch_size=int(batch_size), seed=0
    )
    batches = iter(loader)
    num_first = len(next(batches).images)
    first_at, cpu_at_first = time.perf_counter(), time.process_time()
    num_images = sum(len(batch.images) for batch in batches)
    speed = num_images / (time.perf_counter() - first_at)
    assert num_first + num_images == len(dataset)
    cpu_seconds = time.process_time() - cpu_at_first + sum(os.times()[2:4])  # of the workers too
    result = (
        first_at - started_at,
        cpu_at_first - cpu_before,
        speed,
        1000 * cpu_seconds / len(dataset),
        status_mib("VmHWM"),
    )
    sys.stdout.write(json.dumps([round(value, 2) for value in result]) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
