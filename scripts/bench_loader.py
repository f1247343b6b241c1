"""Images per second of the loader alone, against torchvision's way; and reading the annotations.

    python scripts/bench_loader.py --quick
    python scripts/bench_loader.py --data mydata --data others
    python scripts/bench_loader.py --archives 100000

A folder given by --data holds train.json and images/; it is read as it is, and some of its pictures
enlarged to 6 megapixels. Without --data both sets are drawn. The other loader is put together as
torchvision's detection reference does: CocoDetection without images that have no object, transforms
v2 in the workers (a flip, floats, valid boxes), DataLoader. Both end with float images in the main
process and read every image once an epoch. Then our loader's settings against each other (not with
--quick), and readers of an annotation file of the size of COCO's. Writes bench_loader.md and .png.
With --archives only this is done: so many small images are read as files and in archives.
"""

import argparse
import contextlib
import io
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.transforms import v2

from archive_table import archive_table
from dyhead_det.data.coco.dataset import CocoDataset, load_coco
from dyhead_det.data.detection_dataset import DetectionDataset
from dyhead_det.data.loaders import LoaderOptions, build_train_loader
from dyhead_det.data.transforms import build_augmentation
from dyhead_det.distributed.device import images_to_device
from made_data import draw_photographs, enlarge_photographs, write_annotations
from measuring import (
    Cost,
    draw_bars,
    machine,
    markdown,
    median_cost,
    median_costs,
    option_parser,
    parse,
    report,
)
from read_annotations import READERS

REFERENCE = "torchvision's reference"
OURS = "dyhead-det"

# What a detector resizes to, as in most configurations.
EDGES = (800, 1333)

BOXES_OF_COCO = 860_000


def main() -> None:
    """Measure loaders and annotation readers, and write tables and picture."""
    parser = option_parser(__doc__)
    parser.add_argument("--data", type=Path, action="append", default=[], help="repeat as needed")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--images", type=int, help="at least so many a round [400, quick 60]")
    parser.add_argument("--boxes", type=int, help="in the annotation file [860000, quick 100000]")
    parser.add_argument("--archives", type=int, help="so many images, as files and in archives")
    options = parse(parser)
    options.images = options.images or (60 if options.quick else 400)
    options.boxes = options.boxes or (100_000 if options.quick else BOXES_OF_COCO)
    torch.set_num_threads(1)
    lines = [
        f"# Loading\n\n{machine()}; {options.workers} workers, batches of {options.batch_size}, "
        f"medians of {options.rounds} interleaved rounds\n"
    ]
    if options.archives:
        report([*lines, *archive_table(options)], options.out / "bench_archives.md")
        return
    with tempfile.TemporaryDirectory() as folder:
        folders = dict(data_sets(options, Path(folder)))
        lines += [*loader_table(folders, options), ""]
        if not options.quick:
            lines += [*settings_table(next(iter(folders.values())), options), ""]
        lines += annotation_table(Path(folder) / "large.json", options)
    report(lines, options.out / "bench_loader.md")


def data_sets(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Path]]:
    """Give the data sets by name, and each with large pictures besides."""
    few = max(6, options.images // 20)
    for path in options.data:
        yield path.name, path
        enlarge_photographs(path, folder / path.name, long_edge=3000, count=few)
        yield f"{path.name}, enlarged to 6 megapixels", folder / path.name
    if not options.data:
        draw_photographs(folder / "small", width=640, height=480, count=options.images)
        yield "drawn, 0.3 megapixels", folder / "small"
        draw_photographs(folder / "large", width=3000, height=2000, count=few)
        yield "drawn, 6 megapixels", folder / "large"


def loader_table(folders: Mapping[str, Path], options: argparse.Namespace) -> list[str]:
    """Let the loaders read each data set in turn."""
    rows, ratios = [], {}
    for name, folder in folders.items():
        runs, num_images = contestants(folder, options)
        costs = median_costs(runs, options.rounds)
        reference = costs[REFERENCE]
        ratios[name] = {
            contestant: reference.seconds / cost.seconds for contestant, cost in costs.items()
        }
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
    draw_bars(ratios, f"times faster than {REFERENCE}", options.out / "bench_loader.png")
    return markdown(["", "images/s", "CPU ms per image", "times faster", "by CPU"], rows)


def contestants(
    folder: Path, options: argparse.Namespace
) -> tuple[dict[str, Callable[[], None]], int]:
    """Return what each loader has to do, some epochs, and how many images that makes."""
    coco = our_table(folder)
    # Large pictures are read once a round: they take as long as many small ones.
    is_large = max(coco.size_wh(0)) > 2 * EDGES[1]
    num_epochs = 1 if is_large else math.ceil(options.images / len(coco))
    reference = reference_data(folder)
    runs = {
        REFERENCE: partial(run, partial(reference_loader, reference, options), num_epochs),
        OURS: partial(run, partial(OurBatches, coco, options), num_epochs),
    }
    if is_large:
        runs[f"{OURS}, `reduce_jpegs: false`"] = partial(
            run, partial(OurBatches, coco, options, resized_to=None), num_epochs
        )
    return runs, num_epochs * len(coco)


def run(build: Callable[[], Iterable[object]], num_epochs: int) -> None:
    """Build a loader and read all that it gives."""
    batches = build()
    for _ in range(num_epochs):
        for _ in batches:
            pass


def our_table(folder: Path) -> CocoDataset:
    """Read the annotations of a data set."""
    coco = load_coco(folder / "train.json", folder / "images", split="train")
    return coco.without_empty_images()


class OurBatches:
    """Our training loader, up to the images that a detector takes."""

    def __init__(
        self,
        coco: CocoDataset,
        options: argparse.Namespace,
        *,
        resized_to: tuple[int, int] | None = EDGES,
        num_workers: int | None = None,
        prefetch_factor: int = 2,
        persistent_workers: bool = True,
    ) -> None:
        augmentation = build_augmentation(
            horizontal_flip=0.5,
            vertical_flip=0.0,
            photometric=False,
            large_scale_jitter=None,
            size=EDGES[0],
        )
        loader_options = LoaderOptions(
            num_workers=options.workers if num_workers is None else num_workers,
            prefetch_factor=prefetch_factor,
            persistent_workers=persistent_workers,
            pin_memory=False,
            broken_images="error",
        )
        dataset = DetectionDataset(coco, augmentation=augmentation, resized_to=resized_to)
        self.loader = build_train_loader(
            dataset, loader_options, batch_size=options.batch_size, seed=0
        )

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


def settings_table(folder: Path, options: argparse.Namespace) -> list[str]:
    """Let our loader run with one setting after the other changed."""
    changes: dict[str, dict[str, Any]] = {
        "the defaults": {},
        "`num_workers: 0`": {"num_workers": 0},
        "`num_workers: 1`": {"num_workers": 1},
        "`prefetch_factor: 1`": {"prefetch_factor": 1},
        "`prefetch_factor: 4`": {"prefetch_factor": 4},
        "`persistent_workers: false`": {"persistent_workers": False},
    }
    coco = our_table(folder)
    num_epochs = max(2, math.ceil(options.images / len(coco)))
    num_images = num_epochs * len(coco)
    runs = {
        name: partial(run, partial(OurBatches, coco, options, **change), num_epochs)
        for name, change in changes.items()
    }
    rows = [
        [name, f"{num_images / cost.seconds:.0f}", f"{1000 * cost.cpu_seconds / num_images:.1f}"]
        for name, cost in median_costs(runs, options.rounds).items()
    ]
    columns = [f"{num_epochs} epochs of {len(coco)} images", "images/s", "CPU ms per image"]
    return markdown(columns, rows)


def annotation_table(path: Path, options: argparse.Namespace) -> list[str]:
    """Read a large annotation file, each reader in a Python of its own."""
    write_annotations(path, options.boxes)
    script = str(Path(__file__).with_name("read_annotations.py"))
    told: dict[str, list[list[float | None]]] = {name: [] for name in READERS}
    for _ in range(min(3, options.rounds)):
        for name in READERS:
            command = [sys.executable, script, name, str(path)]
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            told[name].append(json.loads(answer.splitlines()[-1]))
    costs = {
        name: median_cost([Cost(seconds or 0, cpu or 0) for seconds, cpu, _, _ in each])
        for name, each in told.items()
    }
    yardstick = costs["json.load"]
    rows = [
        [
            name,
            f"{cost.seconds:.1f} ({cost.cpu_seconds:.1f})",
            f"{cost.seconds / yardstick.seconds:.2f} "
            f"({cost.cpu_seconds / yardstick.cpu_seconds:.2f})",
            *("" if mib is None else f"{mib:.0f}" for mib in told[name][0][2:]),
        ]
        for name, cost in costs.items()
    ]
    size_mib = path.stat().st_size / 2**20
    columns = [f"{options.boxes} boxes, {size_mib:.0f} MiB", "s (CPU)", "of json.load (CPU)"]
    return markdown([*columns, "peak MiB", "MiB of each worker"], rows)


if __name__ == "__main__":
    main()
