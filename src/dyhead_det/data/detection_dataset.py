"""Images of a COCO data set with their targets, one by one; every sample is a function of its key.

Troubles with image files are values, since samples are read in worker processes.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dyhead_det.contracts import Target
from dyhead_det.data.coco.dataset import CocoDataset
from dyhead_det.data.images import read_image
from dyhead_det.data.samplers import SampleKey
from dyhead_det.errors import DatasetError


class BrokenImage(NamedTuple):
    """An image that cannot be read, and why."""

    file_name: str
    reason: str


class LoadedSample(NamedTuple):
    """An image, (3, H, W) uint8, its target, and what is wrong with the file all the same."""

    image: Tensor
    target: Target
    flaws: tuple[str, ...] = ()


class DetectionDataset(Dataset[LoadedSample | BrokenImage]):
    """Images of a COCO data set, read and augmented one by one.

    Args:
        coco: the data set of images and annotations.
        augmentation: applied to every sample.
        resized_to: bounds of the shorter and the longer edge in pixels that images are made to fit
            later on. Larger images may be decoded at a fraction of their size, not smaller than
            that; the boxes shrink with them.
    """

    def __init__(
        self,
        coco: CocoDataset,
        *,
        augmentation: Callable[[Tensor, Target], tuple[Tensor, Target]] | None = None,
        resized_to: tuple[int, int] | None = None,
    ) -> None:
        self.coco = coco
        self.augmentation = augmentation
        self.resized_to = resized_to

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.coco)

    def __getitem__(self, key: SampleKey) -> LoadedSample | BrokenImage:
        """Return the image, (3, H, W) uint8, and its target; or why there is none."""
        _, _, index = key
        width, height = self.coco.size_wh(index)
        flaws: list[str] = []
        try:
            image = read_image(
                self.coco.image_file(index),
                annotated_size=(width, height),
                resized_to=self.resized_to,
                warn=flaws.append,
            )
        except DatasetError as error:
            return BrokenImage(self.coco.file_names[index], str(error))
        target = self.coco.target(index)
        # Decoders reduce by whole factors and round sizes up: 1001 pixels become 501 of 2 each.
        target["boxes"] /= round(max(width, height) / max(image.shape[1:]))
        if self.augmentation is not None:
            with _random_state(key):
                image, target = self.augmentation(image, target)
        return LoadedSample(image, target, tuple(flaws))


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
