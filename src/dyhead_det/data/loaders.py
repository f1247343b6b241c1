"""Batches of images and targets, read by worker processes; every sample is a function of its key.

Neither the number of worker processes nor an interruption changes what a run sees. Troubles with
image files travel from the workers as values and are told in the main process.
"""

import logging
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from dyhead_det.contracts import Target
from dyhead_det.data.coco import CocoDataset
from dyhead_det.data.images import read_image
from dyhead_det.data.problems import shorten
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


class BrokenImage(NamedTuple):
    """An image that cannot be read, and why."""

    file_name: str
    reason: str


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


Sample = tuple[Tensor, Target]


class DetectionDataset(Dataset[Sample | BrokenImage]):
    """Images of a COCO data set, read and augmented one by one.

    Args:
        coco: the table of images and annotations.
        augmentation: applied to every sample.
        resized_to: bounds of the shorter and the longer edge in pixels that images are made to fit
            later on. Larger JPEG files may be decoded at a fraction of their size, not smaller than
            that; the boxes shrink with them.
    """

    def __init__(
        self,
        coco: CocoDataset,
        *,
        augmentation: Callable[[Tensor, Target], Sample] | None = None,
        resized_to: tuple[int, int] | None = None,
    ) -> None:
        self.coco = coco
        self.augmentation = augmentation
        self.resized_to = resized_to

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.coco)

    def __getitem__(self, key: SampleKey) -> Sample | BrokenImage:
        """Return the image, (3, H, W) uint8, and its target; or why there is none."""
        _, _, index = key
        width, height = self.coco.size_wh(index)
        try:
            image = read_image(
                self.coco.path(index),
                annotated_size=(width, height),
                resized_to=self.resized_to,
            )
        except DatasetError as error:
            return BrokenImage(str(self.coco.file_names[index]), str(error))
        target = self.coco.target(index)
        # Decoders reduce by whole factors and round sizes up: 1001 pixels become 501 of 2 each.
        target["boxes"] /= round(max(width, height) / max(image.shape))
        if self.augmentation is None:
            return image, target
        with _random_state(key):
            return self.augmentation(image, target)


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

    loader: DataLoader[Sample | BrokenImage]
    broken_images: Literal["error", "skip"]
    may_be_empty: bool = False

    def __post_init__(self) -> None:
        self.position = 0
        self.broken: dict[str, str] = {}

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
            num_images += len(delivery.image_ids)
            yield _unpack(delivery)
        self._report(self.broken.keys() - known, num_images)

    def _note(self, broken: list[BrokenImage]) -> None:
        if broken and self.broken_images == "error":
            raise DatasetError(
                f"{broken[0].reason}; repair or remove it, or set data.broken_images to skip"
            )
        self.broken.update(broken)

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


def _pack(samples: list[Sample | BrokenImage]) -> _Delivery:
    readable = [sample for sample in samples if not isinstance(sample, BrokenImage)]
    targets = [target for _, target in readable]
    return _Delivery(
        pixels=_joined([image for image, _ in readable]),
        sizes_hw=[(image.shape[1], image.shape[2]) for image, _ in readable],
        boxes=[target["boxes"].numpy() for target in targets],
        labels=[target["labels"].numpy() for target in targets],
        image_ids=[target["image_id"] for target in targets],
        broken=[sample for sample in samples if isinstance(sample, BrokenImage)],
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


@contextmanager
def _random_state(key: SampleKey) -> Iterator[None]:
    """Seed all generators with a key, and restore them afterwards.

    torch.manual_seed is of no use here: it changes the generators of all devices.
    """
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()
    torch_seed, python_seed, numpy_seed = np.random.SeedSequence(key).generate_state(3).tolist()
    torch.default_generator.manual_seed(torch_seed)
    random.seed(python_seed)
    np.random.seed(numpy_seed)
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        random.setstate(before[1])
        np.random.set_state(before[2])
