"""Images per second of the loader alone, against torchvision's way; and reading the annotations.

    python scripts/bench_loader.py --workers 2 --data mydata --data others

A folder given by --data holds train.json and images/; besides, two sets of JPEG files are drawn.
The other loader is put together as torchvision's detection reference does: CocoDetection without
images that have no object, transforms v2 in the workers (a flip, floats, valid boxes), DataLoader.
Both end with float images in the main process and read every image once an epoch.
"""

import argparse
import contextlib
import io
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.transforms import v2

from dyhead_det.data.coco import CocoDataset, load_coco
from dyhead_det.data.loaders import DetectionDataset, Reading, build_train_loader
from dyhead_det.data.transforms import build_augmentation
from dyhead_det.engine.device import images_to_device
from measuring import Cost, machine, markdown, median_cost, median_costs, report

REFERENCE = "torchvision's reference"
# What a detector resizes to, as in most configurations.
EDGES = (800, 1333)

# Width, height and number of the drawn pictures.
DRAWN = {"drawn, 0.3 megapixels": (640, 480, 200), "drawn, 6 megapixels": (3000, 2000, 20)}

# Run in a Python of its own; prints seconds, CPU seconds, MiB and MiB per process that reads all.
READ = """
import json, os, sys, time
{imports}

def mib(path, key):
    with open(path) as lines:
        return sum(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024

def in_a_worker(read_all):
    out_of, into = os.pipe()
    if os.fork() == 0:
        read_all()
        os.write(into, str(mib("/proc/self/smaps_rollup", "Private")).encode())
        os._exit(0)
    os.wait()
    return float(os.read(out_of, 100))

path = sys.argv[1]
before = time.perf_counter(), time.process_time()
{read}
after = time.perf_counter(), time.process_time()
peak = mib("/proc/self/status", "VmHWM")
worker = in_a_worker(lambda: {read_all}) if {has_workers} else None
print("\\n" + json.dumps([after[0] - before[0], after[1] - before[1], peak, worker]))
"""
READERS = {
    "json.load": {
        "imports": "",
        "read": "with open(path) as file: table = json.load(file)",
        "read_all": "None",
        "has_workers": False,
    },
    "pycocotools": {
        "imports": "from pycocotools.coco import COCO",
        "read": "table = COCO(path)",
        "read_all": "[len(table.loadAnns(table.getAnnIds(key))) for key in table.imgs]",
        "has_workers": True,
    },
    "dyhead-det": {
        "imports": "from pathlib import Path; from dyhead_det.data.coco import load_coco",
        "read": "table = load_coco(Path(path), Path(), split='train')",
        "read_all": "[len(table.target(row)) for row in range(len(table))]",
        "has_workers": True,
    },
}


def main() -> None:
    """Measure loaders and annotation readers, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, action="append", default=[])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--images", type=int, default=400, help="at least so many a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--boxes", type=int, default=860_000, help="0 leaves the annotations out")
    parser.add_argument("--out", type=Path, default=Path("bench"))
    options = parser.parse_args()
    lines = [
        f"# Loading\n\n{machine()}; {options.workers} workers, batches of {options.batch_size}, "
        f"medians of {options.rounds} interleaved rounds\n"
    ]
    with tempfile.TemporaryDirectory() as folder:
        lines += loader_table(dict(data_sets(options.data, Path(folder))), options)
        if options.boxes:
            lines += ["", *annotation_table(Path(folder) / "large.json", options.boxes)]
    report(lines, options.out / "bench_loader.md")


def loader_table(folders: dict[str, Path], options: argparse.Namespace) -> list[str]:
    """Let the loaders read each data set in turn."""
    torch.set_num_threads(1)
    rows = []
    for name, folder in folders.items():
        runs, num_images = contestants(folder, options)
        costs = median_costs(runs, options.rounds)
        reference = costs[REFERENCE]
        rows += [
            [
                f"{name}: {contestant}",
                f"{num_images / cost.seconds:.0f}",
                f"{1000 * cost.cpu_seconds / num_images:.1f}",
                f"{reference.seconds / cost.seconds:.2f}",
                f"{reference.cpu_seconds / cost.cpu_seconds:.2f}",
            ]
            for contestant, cost in costs.items()
        ]
    columns = ["", "images/s", "CPU ms per image", "times faster", "by CPU"]
    return markdown(columns, rows)


def contestants(
    folder: Path, options: argparse.Namespace
) -> tuple[dict[str, Callable[[], None]], int]:
    """Return what each loader has to do, some epochs, and how many images that makes."""
    coco = load_coco(folder / "train.json", folder / "images", split="train")
    coco = coco.without_empty_images()
    reference = reference_data(folder)
    num_epochs = math.ceil(options.images / len(coco))

    def run(build: Callable[[], Iterable[object]]) -> None:
        batches = build()
        for _ in range(num_epochs):
            for _ in batches:
                pass

    runs = {
        REFERENCE: partial(run, partial(reference_loader, reference, options)),
        "dyhead-det": partial(run, partial(OurBatches, coco, None, options)),
        "dyhead-det, `reduce_jpegs`": partial(run, partial(OurBatches, coco, EDGES, options)),
    }
    return runs, num_epochs * len(coco)


class OurBatches:
    """Our training loader, up to the images that a detector takes."""

    def __init__(
        self, coco: CocoDataset, resized_to: tuple[int, int] | None, options: argparse.Namespace
    ) -> None:
        augmentation = build_augmentation(
            horizontal_flip=0.5,
            vertical_flip=0.0,
            photometric=False,
            large_scale_jitter=None,
            size=EDGES[0],
        )
        reading = Reading(
            num_workers=options.workers,
            prefetch_factor=2,
            persistent_workers=True,
            pin_memory=False,
            broken_images="error",
        )
        dataset = DetectionDataset(coco, augmentation=augmentation, resized_to=resized_to)
        self.loader = build_train_loader(dataset, reading, batch_size=options.batch_size, seed=0)

    def __iter__(self) -> Iterator[list[Tensor]]:
        """Give the images of one batch after the other."""
        for images, _ in self.loader:
            yield images_to_device(images, torch.device("cpu"))


def reference_data(folder: Path) -> Subset[Any]:
    """Put a data set together as torchvision's detection reference does."""
    transforms = v2.Compose(
        [
            v2.RandomHorizontalFlip(0.5),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.ConvertBoundingBoxFormat("XYXY"),
            v2.SanitizeBoundingBoxes(),
            v2.ToPureTensor(),
        ]
    )
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools talks
        coco = CocoDetection(folder / "images", folder / "train.json", transforms=transforms)
    dataset = wrap_dataset_for_transforms_v2(coco, target_keys=("image_id", "boxes", "labels"))
    return Subset(dataset, [row for row, key in enumerate(coco.ids) if coco.coco.getAnnIds(key)])


def reference_loader(dataset: Subset[Any], options: argparse.Namespace) -> DataLoader[Any]:
    """Read it as the reference does, with workers that live on."""
    return DataLoader(
        dataset,
        batch_size=options.batch_size,
        shuffle=True,
        num_workers=options.workers,
        collate_fn=as_lists,
        persistent_workers=True,
    )


def as_lists(samples: list[tuple[Any, Any]]) -> tuple[Any, ...]:
    """Collate as the reference does: images and targets stay lists."""
    return tuple(zip(*samples, strict=True))


def data_sets(given: list[Path], folder: Path) -> Iterator[tuple[str, Path]]:
    """Give the folders by name, those drawn included."""
    for path in given:
        yield path.name, path
    for name, (width, height, count) in DRAWN.items():
        drawn = folder / f"{width}x{height}"
        draw(drawn, width, height, count)
        yield name, drawn


def draw(folder: Path, width: int, height: int, count: int) -> None:
    """Draw photograph-like JPEG files, soft shapes with some noise, with five boxes each."""
    random = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    images, boxes = [], []
    for number in range(count):
        soft = Image.fromarray(random.integers(0, 256, (height // 40, width // 40, 3), np.uint8))
        pixels = np.asarray(soft.resize((width, height), Image.Resampling.BICUBIC), np.float32)
        noisy = pixels + random.normal(0, 6, (height, width, 1)).astype(np.float32)
        name = f"{number}.jpg"
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(
            folder / "images" / name, quality=90
        )
        images.append({"id": number + 1, "file_name": name, "width": width, "height": height})
        corners = random.uniform(0, 0.5, (5, 2)) * (width, height)
        sides = random.uniform(0.1, 0.5, (5, 2)) * (width, height)
        boxes += [
            (number + 1, box) for box in np.concatenate([corners, sides], axis=1).round(2).tolist()
        ]
    with (folder / "train.json").open("w", encoding="utf-8") as file:
        json.dump(coco_document(images, boxes, segmentation=[]), file)


def coco_document(
    images: list[dict[str, Any]],
    boxes: list[tuple[int, list[float]]],
    *,
    segmentation: list[list[float]],
) -> dict[str, Any]:
    """Write boxes of images, by id, as COCO does."""
    return {
        "images": images,
        "annotations": [
            {
                "segmentation": segmentation,
                "area": box[2] * box[3],
                "iscrowd": 0,
                "image_id": image_id,
                "bbox": box,
                "category_id": number % 80 + 1,
                "id": number,
            }
            for number, (image_id, box) in enumerate(boxes, start=1)
        ],
        "categories": [{"id": number, "name": f"class {number}"} for number in range(1, 81)],
    }


def annotation_table(path: Path, num_boxes: int) -> list[str]:
    """Read a file as large as COCO's training annotations, each reader in a Python of its own."""
    write_annotations(path, num_boxes)
    costs: dict[str, list[list[float]]] = {name: [] for name in READERS}
    for _ in range(3):
        for name, parts in READERS.items():
            command = [sys.executable, "-c", READ.format(**parts), str(path)]
            told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            costs[name].append(json.loads(told.splitlines()[-1]))
    yardstick = median_cost([Cost(*each[:2]) for each in costs["json.load"]])
    rows = []
    for name, each in costs.items():
        cost = median_cost([Cost(*one[:2]) for one in each])
        worker = "" if each[0][3] is None else f"{each[0][3]:.0f}"
        rows.append(
            [
                name,
                f"{cost.seconds:.1f} ({cost.cpu_seconds:.1f})",
                f"{cost.seconds / yardstick.seconds:.2f} "
                f"({cost.cpu_seconds / yardstick.cpu_seconds:.2f})",
                f"{each[0][2]:.0f}",
                worker,
            ]
        )
    size_mib = path.stat().st_size / 2**20
    columns = [f"{num_boxes} boxes, {size_mib:.0f} MiB", "s (CPU)", "of json.load (CPU)"]
    return markdown([*columns, "peak MiB", "MiB of each worker"], rows)


def write_annotations(path: Path, num_boxes: int) -> None:
    """Write annotations with polygons, 7.3 boxes an image as in COCO."""
    random = np.random.default_rng(0)
    num_images = max(1, round(num_boxes / 7.3))
    images = [
        {
            "license": 3,
            "file_name": f"{number:012d}.jpg",
            "coco_url": f"http://images.example.org/train/{number:012d}.jpg",
            "height": 480,
            "width": 640,
            "date_captured": "2013-11-14 11:18:45",
            "flickr_url": f"http://farm.example.org/8186/{number:012d}_z.jpg",
            "id": number,
        }
        for number in range(1, num_images + 1)
    ]
    owners = random.integers(1, num_images + 1, num_boxes).tolist()
    boxes = random.uniform((0, 0, 5, 5), (300, 200, 300, 250), (num_boxes, 4)).round(2).tolist()
    polygon = random.uniform(0, 480, 48).round(2).tolist()
    document = coco_document(images, list(zip(owners, boxes, strict=True)), segmentation=[polygon])
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(document))


if __name__ == "__main__":
    main()
