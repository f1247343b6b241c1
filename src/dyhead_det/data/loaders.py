"""Batches of images and targets, read by worker processes.

Neither the number of worker processes nor an interruption changes what a run sees. Troubles with
image files travel from the workers as values and are logged in the main process.
"""

import logging
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, get_worker_info

from dyhead_det.contracts import Target
from dyhead_det.data.coco.problems import shorten
from dyhead_det.data.detection_dataset import BrokenImage, DetectionDataset, LoadedSample
from dyhead_det.data.samplers import (
    Counts,
    EpochBatchSampler,
    Groups,
    SampleKey,
    SequentialBatchSampler,
)
from dyhead_det.errors import DatasetError

logger = logging.getLogger(__name__)


class Batch(NamedTuple):
    """What a model takes: B images (3, H, W) uint8 of any size, and their B targets.

    B may be 0: where nothing can be read, or another process has the only image of a step.
    """

    images: list[Tensor]
    targets: list[Target]


class _Delivery(NamedTuple):
    """What a worker sends.

    All pixels are one tensor (and the targets arrays): each tensor costs a file descriptor, and
    sharing and pinning its memory.
    """

    pixels: Tensor
    sizes_hw: list[tuple[int, int]]
    boxes: list[NDArray[np.float32]]
    labels: list[NDArray[np.int64]]
    image_ids: list[int]
    broken: list[BrokenImage]
    flaws: list[str]


@dataclass(frozen=True, kw_only=True)
class LoaderOptions:
    """How worker processes read images; none of it changes what a run sees.

    Attributes:
        num_workers: processes; with 0 the main process reads itself.
        prefetch_factor: batches that each worker holds ready.
        persistent_workers: workers of a training loader live as long as it, not for one epoch.
        pin_memory: bring batches to memory that a CUDA device reads without waiting.
        broken_images: what to do about images that cannot be read.
    """

    num_workers: int
    prefetch_factor: int
    persistent_workers: bool
    pin_memory: bool
    broken_images: Literal["error", "skip"]


@dataclass
class DetectionLoader:
    """Iterate over batches; raise on a broken image, or leave it out and count it.

    Attributes:
        broken_images: what to do about images that cannot be read.
        position: number of batches of the current epoch that were given out, those before the start
            position and those without a single readable image included.
        broken: file names of images that could not be read, with the reason.
        may_be_empty: whether a pass without a single readable image is no error, since other ranks
            read the rest of the data set.
    """

    loader: DataLoader[LoadedSample | BrokenImage]
    broken_images: Literal["error", "skip"]
    may_be_empty: bool = False

    def __post_init__(self) -> None:
        self.position = 0
        self.broken: dict[str, str] = {}
        self._flaws: set[str] = set()

    def __len__(self) -> int:
        """Return the number of batches that the next pass gives."""
        return len(self.loader)

    def set_epoch(self, epoch: int, *, start_step: int = 0) -> None:
        """Choose the epoch of the next pass and how many of its batches to leave out."""
        sampler = self.loader.batch_sampler
        if not isinstance(sampler, EpochBatchSampler):
            raise TypeError("only a loader for training has epochs")
        sampler.set_epoch(epoch, start_step=start_step)

    def __iter__(self) -> Iterator[Batch]:
        """Give batches, without an image where none of theirs can be read.

        Raises:
            DatasetError: for the first broken image, or if all images are broken.
        """
        sampler = self.loader.batch_sampler
        self.position = sampler.start_step if isinstance(sampler, EpochBatchSampler) else 0
        known = set(self.broken)
        num_images = 0
        delivery: _Delivery
        for delivery in self.loader:
            self.position += 1
            self._note(delivery.broken)
            self._warn(delivery.flaws)
            num_images += len(delivery.image_ids)
            yield _unpack(delivery)
        self._report(self.broken.keys() - known, num_images)

    def _note(self, broken: list[BrokenImage]) -> None:
        if broken and self.broken_images == "error":
            raise DatasetError(
                f"{broken[0].reason}; repair or remove it, or set data.broken_images to skip "
                "(eval: --broken-images skip)"
            )
        self.broken.update(broken)

    def _warn(self, flaws: list[str]) -> None:
        """Log each flaw of a file once, however often the file is read."""
        for flaw in flaws:
            if flaw not in self._flaws:
                logger.warning("%s", flaw)
        self._flaws.update(flaws)

    def _report(self, newly_broken: set[str], num_images: int) -> None:
        if self.broken and not num_images and not self.may_be_empty:
            name, reason = next(iter(self.broken.items()))
            raise DatasetError(f"none of the images can be read; {name}: {reason}")
        if newly_broken:
            logger.warning(
                "%d images could not be read and were skipped: %s; the first: %s",
                len(newly_broken),
                shorten(sorted(newly_broken), len(newly_broken)),
                self.broken[min(newly_broken)],
            )


def build_train_loader(
    dataset: DetectionDataset,
    options: LoaderOptions,
    *,
    batch_size: int,
    seed: int,
    counts: Counts | None = None,
    groups: Groups | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> DetectionLoader:
    """Build the loader of a training run; `set_epoch` chooses what it gives.

    `counts` and `groups` are those of `EpochBatchSampler`.

    Raises:
        DatasetError: if there is no image.
    """
    if not len(dataset):
        raise DatasetError(
            f"{dataset.coco.annotations_path} has no image with an object to train on; "
            f"check data.train.annotations"
        )
    sampler = EpochBatchSampler(
        len(dataset),
        batch_size=batch_size,
        seed=seed,
        counts=counts,
        groups=groups,
        rank=rank,
        world_size=world_size,
    )
    return _build_loader(
        dataset, sampler, options, lives_on=options.persistent_workers and options.num_workers > 0
    )


def build_eval_loader(
    dataset: DetectionDataset,
    options: LoaderOptions,
    *,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
) -> DetectionLoader:
    """Build a loader that gives every image once, in order, its share to each process.

    Its workers live for one pass: between evaluations they would only hold memory.
    """
    sampler = SequentialBatchSampler(
        len(dataset), batch_size=batch_size, rank=rank, world_size=world_size
    )
    loader = _build_loader(dataset, sampler, options, lives_on=False)
    loader.may_be_empty = world_size > 1
    return loader


def _build_loader(
    dataset: DetectionDataset,
    sampler: Sampler[list[SampleKey]],
    options: LoaderOptions,
    *,
    lives_on: bool,
) -> DetectionLoader:
    loader = DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=options.num_workers,
        collate_fn=_pack,
        pin_memory=options.pin_memory,
        worker_init_fn=_prepare_worker,
        prefetch_factor=options.prefetch_factor if options.num_workers else None,
        persistent_workers=lives_on,
        # Without its own generator, each pass would draw from the one that the model draws from.
        generator=torch.Generator(),
    )
    return DetectionLoader(loader, options.broken_images)


def _pack(samples: list[LoadedSample | BrokenImage]) -> _Delivery:
    readable = [sample for sample in samples if not isinstance(sample, BrokenImage)]
    targets = [sample.target for sample in readable]
    return _Delivery(
        pixels=_joined([sample.image for sample in readable]),
        sizes_hw=[(sample.image.shape[1], sample.image.shape[2]) for sample in readable],
        boxes=[target["boxes"].numpy() for target in targets],
        labels=[target["labels"].numpy() for target in targets],
        image_ids=[target["image_id"] for target in targets],
        broken=[sample for sample in samples if isinstance(sample, BrokenImage)],
        flaws=[flaw for sample in readable for flaw in sample.flaws],
    )


def _joined(images: list[Tensor]) -> Tensor:
    """Return all pixels in a row, in a worker in memory that the main process sees too."""
    pixels = torch.empty(sum(image.numel() for image in images), dtype=torch.uint8)
    if get_worker_info() is not None:
        pixels.share_memory_()  # type: ignore[no-untyped-call]  # PyTorch's, not annotated
    return torch.cat([image.flatten() for image in images], out=pixels) if images else pixels


def _unpack(delivery: _Delivery) -> Batch:
    counts = [3 * height * width for height, width in delivery.sizes_hw]
    images = [
        pixels.view(3, height, width)
        for pixels, (height, width) in zip(
            torch.split(delivery.pixels, counts), delivery.sizes_hw, strict=True
        )
    ]
    targets: list[Target] = [
        {
            "boxes": torch.from_numpy(boxes),
            "labels": torch.from_numpy(labels),
            "image_id": image_id,
        }
        for boxes, labels, image_id in zip(
            delivery.boxes, delivery.labels, delivery.image_ids, strict=True
        )
    ]
    return Batch(images, targets)


def _prepare_worker(_worker_id: int) -> None:
    """Leave Ctrl-C and a lost terminal to the main process, which saves first.

    SIGTERM has its effect: Python sends it at its exit to workers that are left, and waits.
    """
    torch.set_num_threads(1)
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):  # Windows has no SIGHUP
            signal.signal(getattr(signal, name), signal.SIG_IGN)
