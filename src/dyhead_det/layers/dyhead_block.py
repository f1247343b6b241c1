"""The DyHead block: every level attends to itself and its neighbours, then to scale, then to task.

Dai et al., "Dynamic Head: Unifying Object Detection Heads with Attentions" (arXiv 2106.08322), as
the authors' code computes it: each level keeps its own resolution and reads the level itself, the
next finer and the next coarser one. This file is the documentation of the formula;
`dyhead_fast.py` computes the same faster.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dyhead_det.layers.deform_conv import DeformBackend, modulated_deform_conv2d
from dyhead_det.layers.dynamic_relu import DynamicReLU

CoarseOffsets = Literal["resized", "flattened", "cropped"]

NUM_GROUPS = 16


class DyHeadBlock(nn.Module):
    """Spatial, scale and task attention, one after the other, on every level.

    All levels share the parameters and read the block's input, never a neighbour's new map.
    """

    def __init__(
        self, channels: int, *, coarse_offsets: CoarseOffsets, zero_init_offsets: bool
    ) -> None:
        super().__init__()
        self.coarse_offsets = coarse_offsets
        self.offset_and_mask = nn.Conv2d(channels, 18 + 9, kernel_size=3, padding=1)
        if zero_init_offsets:
            for parameter in self.offset_and_mask.parameters():
                nn.init.zeros_(parameter)
        self.same = NormedDeformConv(channels, stride=1)
        self.finer = NormedDeformConv(channels, stride=2)
        self.coarser = NormedDeformConv(channels, stride=1)
        self.scale = ScaleAttention(channels)
        self.task = DynamicReLU(channels, reduction=4)

    def forward(self, levels: list[Tensor], deform_backend: DeformBackend) -> list[Tensor]:
        """Return the new maps of all levels; shapes as in `DyHead.forward`."""
        attended = []
        for level, x in enumerate(levels):
            offset_and_mask = self.offset_and_mask(x)
            offset, mask = split_offset_and_mask(offset_and_mask)
            candidates = [self.same(x, offset, mask, deform_backend)]
            if level > 0:
                candidates.append(self.finer(levels[level - 1], offset, mask, deform_backend))
            if level + 1 < len(levels):
                coarse = levels[level + 1]
                coarse_offset, coarse_mask = split_offset_and_mask(
                    bring_to_coarser(offset_and_mask, coarse.shape[-2:], rule=self.coarse_offsets)
                )
                seen = self.coarser(coarse, coarse_offset, coarse_mask, deform_backend)
                candidates.append(resize(seen, x.shape[-2:]))
            attended.append(self.task(self.scale(candidates)))
        return attended


class NormedDeformConv(nn.Module):
    """The spatial attention's view of one level: deformable convolution and group norm."""

    def __init__(self, channels: int, *, stride: int) -> None:
        super().__init__()
        if channels % NUM_GROUPS:
            raise ValueError(f"DyHead needs channels divisible by {NUM_GROUPS}, got {channels}")
        self.stride = stride
        # The authors' code: uniform, and a bias although a norm follows.
        bound = 1 / math.sqrt(9 * channels)
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.norm = nn.GroupNorm(NUM_GROUPS, channels)

    def forward(
        self, x: Tensor, offset: Tensor, mask: Tensor, deform_backend: DeformBackend
    ) -> Tensor:
        """See `modulated_deform_conv2d` for the shapes."""
        sampled = modulated_deform_conv2d(
            x, offset, mask, self.weight, self.bias, stride=self.stride, backend=deform_backend
        )
        normed: Tensor = self.norm(sampled)
        return normed


class ScaleAttention(nn.Module):
    """Weigh each candidate by one number per image, at least a half, and average.

    The paper's equation 3 writes max(0, min(1, (s + 1) / 2)); the authors' code, with which the
    published weights were trained, is hardsigmoid(relu(s)).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Linear(channels, 1)
        nn.init.normal_(self.score.weight, std=0.01)
        nn.init.zeros_(self.score.bias)

    def forward(self, candidates: list[Tensor]) -> Tensor:
        """Fuse candidates of one level, each (B, C, H, W), to one map of that shape."""
        weighed = [
            candidate * self.gates(candidate.mean(dim=(2, 3)))[:, :, None, None]
            for candidate in candidates
        ]
        return torch.stack(weighed).mean(dim=0)

    def gates(self, pooled: Tensor) -> Tensor:
        """Return the numbers, (B, 1), for channel means (B, C)."""
        return F.hardsigmoid(F.relu(self.score(pooled)))


def split_offset_and_mask(offset_and_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Split (B, 27, H, W) into (dy, dx) of nine taps, (B, 18, H, W), and masks in (0, 1)."""
    return offset_and_mask[:, :18], offset_and_mask[:, 18:].sigmoid()


def bring_to_coarser(
    offset_and_mask: Tensor, size_hw: Sequence[int], *, rule: CoarseOffsets
) -> Tensor:
    """Turn a level's offsets and mask logits into those for reading the next coarser level.

    They were computed on a grid twice as large as the one they are needed on, and nothing says how
    to bridge that. Published weights were trained under two accidents, which they need:

    * ``resized``: interpolate; every place keeps its own offsets. For new training.
    * ``flattened``: the authors' CUDA code reads the memory of the offsets, and that of the mask,
      image by image as if it had the smaller shape (microsoft/DynamicHead#25).
    * ``cropped``: the top left corner, as in mmdetection (open-mmlab/mmdetection#11150).

    Args:
        offset_and_mask: (B, 27, H, W).
        size_hw: height and width of the coarser level.
        rule: how.

    Returns:
        (B, 27, *size_hw).
    """
    height, width = size_hw
    if rule == "resized":
        return resize(offset_and_mask, size_hw)
    if rule == "cropped":
        return offset_and_mask[:, :, :height, :width]
    prefixes = [
        part.flatten(1)[:, : part.shape[1] * height * width]
        for part in (offset_and_mask[:, :18], offset_and_mask[:, 18:])
    ]
    return torch.cat(prefixes, dim=1).view(len(offset_and_mask), 27, height, width)


def resize(x: Tensor, size_hw: Sequence[int]) -> Tensor:
    """Interpolate maps (B, K, H, W) so that corner pixels fall on corner pixels."""
    return F.interpolate(x, size=list(size_hw), mode="bilinear", align_corners=True)
