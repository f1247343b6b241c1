"""Configuration -> the loaders of training and of evaluation, with the share of this process."""

import logging
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dyhead_det.config.schema import DataConfig, RunConfig
from dyhead_det.contracts import Target
from dyhead_det.data.balance import aspect_ratio_groups
from dyhead_det.data.build_datasets import image_counts
from dyhead_det.data.coco.dataset import CocoDataset
from dyhead_det.data.detection_dataset import DetectionDataset
from dyhead_det.data.loaders import (
    DetectionLoader,
    LoaderOptions,
    build_eval_loader,
    build_train_loader,
)
from dyhead_det.data.samplers import Counts, samples_per_epoch
from dyhead_det.distributed.world import get_rank, get_world_size

logger = logging.getLogger(__name__)


def training_loader(
    config: RunConfig,
    data: CocoDataset,
    device: torch.device,
    *,
    augmentation: Callable[..., Any] | None = None,
) -> DetectionLoader:
    """Build the loader of a run, with its augmentation.

    Args:
        config: The run.
        data: What to train on.
        device: Where batches go.
        augmentation: A transform of images and targets in place of `data.augment`.

    Raises:
        DatasetError: If there is no image.
    """
    return build_train_loader(
        training_dataset(config, data, augmentation=augmentation),
        _loader_options(config.data, device),
        batch_size=config.train.batch_size,
        seed=config.seed,
        counts=_counts(config.data, data),
        groups=aspect_ratio_groups(data) if config.data.group_by_aspect_ratio else None,
        rank=get_rank(),
        world_size=get_world_size(),
    )


def training_dataset(
    config: RunConfig, data: CocoDataset, *, augmentation: Callable[..., Any] | None = None
) -> DetectionDataset:
    """Build the samples of a run, augmented one by one; arguments as in `training_loader`."""
    resized_to = largest_training_size(config) if config.data.reduce_jpegs else None
    return DetectionDataset(
        data, augmentation=_augmentation(config, augmentation), resized_to=resized_to
    )


def _augmentation(
    config: RunConfig, custom: Callable[..., Any] | None
) -> Callable[[Tensor, Target], tuple[Tensor, Target]] | None:
    # Imported here since evaluation goes without; it brings PyTorch's compiler with it.
    from dyhead_det.data.custom_augmentation import CustomAugmentation  # noqa: PLC0415
    from dyhead_det.data.transforms import build_augmentation  # noqa: PLC0415

    if custom is not None:
        return CustomAugmentation(custom)
    return build_augmentation(
        horizontal_flip=config.data.augment.horizontal_flip,
        vertical_flip=config.data.augment.vertical_flip,
        photometric=config.data.augment.photometric,
        large_scale_jitter=config.data.augment.large_scale_jitter,
        size=config.model.input.short_edge,
    )


def _counts(config: DataConfig, data: CocoDataset) -> Counts | None:
    """Return how often each image comes an epoch, and say so where that differs."""
    counts = image_counts(config.sampling, data)
    if counts is not None:
        logger.info(
            "data.sampling %s: %d samples an epoch of %d images, which come %.3g to %.3g times",
            config.sampling.name,
            samples_per_epoch(len(data), counts),
            len(data),
            counts.min(),
            counts.max(),
        )
    return counts


def evaluation_loader(
    config: DataConfig, data: CocoDataset, device: torch.device, *, batch_size: int
) -> DetectionLoader:
    """Build a loader of whole images: scores are those of the pixels as they are in the files."""
    return build_eval_loader(
        DetectionDataset(data),
        _loader_options(config, device),
        batch_size=batch_size,
        rank=get_rank(),
        world_size=get_world_size(),
    )


def largest_training_size(config: RunConfig) -> tuple[int, int]:
    """Return bounds of the shorter and the longer edge of images as a run sees them, in pixels."""
    input_config, jitter = config.model.input, config.data.augment.large_scale_jitter
    if jitter is not None:  # the longer edge is made this long, before the crop
        edge = math.ceil(input_config.short_edge * max(jitter))
        return edge, edge
    return max((input_config.short_edge, *input_config.multi_scale)), input_config.long_edge


def _loader_options(config: DataConfig, device: torch.device) -> LoaderOptions:
    return LoaderOptions(
        num_workers=config.num_workers,
        prefetch_factor=config.prefetch_factor,
        persistent_workers=config.persistent_workers,
        pin_memory=config.pin_memory and device.type == "cuda",
        broken_images=config.broken_images,
    )
