"""Micro-batches: a batch in parts whose weighted losses have the sum and gradient of the whole's.

The whole is the batch of all ranks. What a loss is divided by (the loss normalizer) is added up
over micro-batches and ranks, and each loss is weighted by its own part of that.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from dyhead_det.contracts import Target
from dyhead_det.distributed.collectives import all_reduce_sum
from dyhead_det.distributed.world import get_world_size
from dyhead_det.models.detectors import Detector
from dyhead_det.models.loss_normalizers import PER_IMAGE, loss_normalizers, loss_weights


class MicroBatch(NamedTuple):
    """Images (3, H, W) uint8 and their targets; none where another rank has the only ones."""

    images: list[Tensor]
    targets: list[Target]


# What a rank without an image calls the model with; its losses and statistics count for nothing.
STAND_IN = MicroBatch(
    [torch.zeros(3, 64, 64, dtype=torch.uint8)],
    [Target(boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))],
)


def split_batch(
    images: list[Tensor], targets: list[Target], num_micro_batches: int
) -> list[MicroBatch]:
    """Split the batch of a rank as evenly as can be.

    Alone, no micro-batch is empty; several ranks must take equally many.
    """
    if get_world_size() == 1:
        num_micro_batches = min(num_micro_batches, len(images))
    bounds = [
        round(number * len(images) / num_micro_batches) for number in range(num_micro_batches + 1)
    ]
    return [MicroBatch(images[start:end], targets[start:end]) for start, end in pairwise(bounds)]


def micro_batch_weights(
    detector: Detector, micro_batches: list[MicroBatch], device: torch.device, *, seed: int
) -> list[dict[str, Tensor]]:
    """Return what the losses of each micro-batch are multiplied by; empty where it is the whole.

    DDP averages gradients over the ranks, so each counts as often as there are ranks.

    Args:
        detector: In training mode.
        micro_batches: Of this rank.
        device: Of the detector.
        seed: As the detector will be given it.
    """
    world_size = get_world_size()
    if len(micro_batches) == world_size == 1:
        return [{}]
    normalizers = [
        loss_normalizers(
            detector,
            [(image.shape[-2], image.shape[-1]) for image in images],
            targets_to_device(targets, device),
            seed=seed,
        )
        for images, targets in micro_batches
    ]
    of_rank = torch.stack([torch.stack(list(one.values())) for one in normalizers]).sum(dim=0)
    whole = dict(zip(normalizers[0], all_reduce_sum(of_rank), strict=True))
    return [
        {
            name: weight * world_size * bool(images)
            for name, weight in loss_weights(detector, one, whole).items()
        }
        for one, (images, _) in zip(normalizers, micro_batches, strict=True)
    ]


def weigh_losses(losses: dict[str, Tensor], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Multiply losses by their weights, and let their names start with ``loss``."""
    return {
        name if name.startswith("loss") else f"loss_{name}": (
            loss * weights.get(name, weights.get(PER_IMAGE, 1))
        )
        for name, loss in losses.items()
    }


def targets_to_device(targets: list[Target], device: torch.device) -> list[Target]:
    """Return the targets with their tensors on a device."""
    return [
        {
            **target,
            "boxes": target["boxes"].to(device, non_blocking=True),
            "labels": target["labels"].to(device, non_blocking=True),
        }
        for target in targets
    ]
