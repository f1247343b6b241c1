"""The DyHead block: every level attends to itself and its neighbors, then to scale, then to task.

Dai et al., "Dynamic Head: Unifying Object Detection Heads with Attentions" (arXiv 2106.08322), as
the authors' code computes it: each level keeps its own resolution and reads the level itself, the
next finer and the next coarser one. This file is the documentation of the formula;
`fast.py` computes the same faster.
"""

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dyhead_det.dyhead.dynamic_relu import CoefficientsOf, DynamicReLU
from dyhead_det.ops.deform_conv import DeformBackend, modulated_deform_conv2d

Attention = Literal["scale", "spatial", "task"]
Spatial = Literal["deform", "conv"]
CoarseOffsets = Literal["resized", "flattened", "cropped"]

NUM_GROUPS = 16


class DyHeadBlock(nn.Module):
    """Spatial, scale and task attention, one after the other, on every level.

    All levels share the parameters and read the block's input, never a neighbor's new map. An
    attention that is left out is a step that is left out, its parameters too:

    * without spatial attention the candidates are the neighboring maps themselves, resized;
    * without scale attention the candidates are averaged as they are;
    * without these two a level is its own only candidate: nothing reads the neighbors;
    * without task attention there is no activation.
    """

    offset_and_mask: nn.Conv2d
    same: "NormedDeformConv"
    finer: "NormedDeformConv"
    coarser: "NormedDeformConv"
    scale: "ScaleAttention"
    task: DynamicReLU

    def __init__(
        self,
        channels: int,
        *,
        attention: Sequence[Attention],
        spatial: Spatial,
        dynamic_relu: CoefficientsOf,
        coarse_offsets: CoarseOffsets,
        zero_init_offsets: bool,
    ) -> None:
        super().__init__()
        check_options(attention, spatial, dynamic_relu)
        check_choice("coarse_offsets", coarse_offsets, get_args(CoarseOffsets))
        self.attention = frozenset(attention)
        self.spatial = spatial
        self.coarse_offsets = coarse_offsets
        if "spatial" in attention:
            if spatial == "deform":
                self.offset_and_mask = build_offset_conv(channels, zero_init=zero_init_offsets)
            self.same = NormedDeformConv(channels, stride=1)
            self.finer = NormedDeformConv(channels, stride=2)
            self.coarser = NormedDeformConv(channels, stride=1)
        if "scale" in attention:
            self.scale = ScaleAttention(channels)
        if "task" in attention:
            self.task = DynamicReLU(channels, reduction=4, coefficients_of=dynamic_relu)

    def forward(self, levels: list[Tensor], deform_backend: DeformBackend) -> list[Tensor]:
        """Return the new maps of all levels; shapes as in `DyHead.forward`."""
        attended = []
        for level in range(len(levels)):
            candidates = self._candidates(levels, level, deform_backend)
            fused = self.scale(candidates) if "scale" in self.attention else average(candidates)
            attended.append(self.task(fused) if "task" in self.attention else fused)
        return attended

    def _candidates(
        self, levels: list[Tensor], level: int, deform_backend: DeformBackend
    ) -> list[Tensor]:
        """Return what a level sees of itself, the finer and the coarser level, at its own size."""
        if "spatial" not in self.attention:
            return (
                resized_neighbors(levels, level) if "scale" in self.attention else [levels[level]]
            )
        x = levels[level]
        offsets_and_masks = self.offset_and_mask(x) if self.spatial == "deform" else None
        candidates = [self.same(x, offsets_and_masks, deform_backend)]
        if level > 0:
            candidates.append(self.finer(levels[level - 1], offsets_and_masks, deform_backend))
        if level + 1 < len(levels):
            coarse = levels[level + 1]
            if offsets_and_masks is not None:
                offsets_and_masks = bring_to_coarser(
                    offsets_and_masks, coarse.shape[-2:], rule=self.coarse_offsets
                )
            candidates.append(
                resize(self.coarser(coarse, offsets_and_masks, deform_backend), x.shape[-2:])
            )
        return candidates


def check_counts(**counts: int) -> None:
    """Refuse what is no number of channels or blocks: without any, DyHead would do nothing.

    Raises:
        ValueError: naming the argument.
    """
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
            raise ValueError(f"{name} is a whole number from 1 on, not {value!r}")


def check_options(
    attention: Sequence[Attention], spatial: Spatial, dynamic_relu: CoefficientsOf
) -> None:
    """Refuse options of a block that do not exist.

    Raises:
        ValueError: naming the option and what it may be.
    """
    if not attention:
        raise ValueError(f"attention is empty; one or more of {', '.join(get_args(Attention))}")
    for each in attention:
        check_choice("attention", each, get_args(Attention))
    check_choice("spatial", spatial, get_args(Spatial))
    check_choice("dynamic_relu", dynamic_relu, get_args(CoefficientsOf))


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a value that is none of the choices.

    Raises:
        ValueError: naming the option and the choices.
    """
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; one of {', '.join(choices)}")


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
        self, x: Tensor, offsets_and_masks: Tensor | None, deform_backend: DeformBackend
    ) -> Tensor:
        """See `modulated_deform_conv2d`; without offsets and masks the convolution is plain."""
        if offsets_and_masks is None:
            seen = F.conv2d(x, self.weight, self.bias, stride=self.stride, padding=1)
        else:
            offset, mask = split_offsets_and_masks(offsets_and_masks)
            seen = modulated_deform_conv2d(
                x, offset, mask, self.weight, self.bias, stride=self.stride, backend=deform_backend
            )
        # Not the module: it refuses a map of one pixel with one channel a group.
        norm = self.norm
        return torch.group_norm(seen, norm.num_groups, norm.weight, norm.bias, norm.eps)


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
        return average(weighed)

    def gates(self, pooled: Tensor) -> Tensor:
        """Return the numbers, (B, 1), for channel means (B, C)."""
        return F.hardsigmoid(F.relu(self.score(pooled)))


def average(maps: Sequence[Tensor]) -> Tensor:
    """Average maps of one shape."""
    return torch.stack(list(maps)).mean(dim=0)


def resized_neighbors(levels: Sequence[Tensor], level: int) -> list[Tensor]:
    """Return a level's map, and those of the finer and the coarser level at its size."""
    neighbors = [levels[level]]
    if level > 0:
        neighbors.append(halve(levels[level - 1]))
    if level + 1 < len(levels):
        neighbors.append(resize(levels[level + 1], levels[level].shape[-2:]))
    return neighbors


def build_offset_conv(channels: int, *, zero_init: bool) -> nn.Conv2d:
    """Return the convolution that makes offsets and masks of nine taps from a map."""
    conv = nn.Conv2d(channels, 18 + 9, kernel_size=3, padding=1)
    if zero_init:
        for parameter in conv.parameters():
            nn.init.zeros_(parameter)
    return conv


def split_offsets_and_masks(offsets_and_masks: Tensor) -> tuple[Tensor, Tensor]:
    """Split (B, 27, H, W) into (dy, dx) of nine taps, (B, 18, H, W), and masks in (0, 1)."""
    return offsets_and_masks[:, :18], offsets_and_masks[:, 18:].sigmoid()


def bring_to_coarser(
    offsets_and_masks: Tensor, size_hw: Sequence[int], *, rule: CoarseOffsets
) -> Tensor:
    """Turn a level's offsets and mask logits into those for reading the next coarser level.

    They were computed on a grid twice as large as the one they are needed on, and nothing says how
    to bridge that. Published weights were trained under two accidents, which they need:

    * ``resized``: interpolate; every location keeps its own offsets. For new training.
    * ``flattened``: the authors' CUDA code reads the memory of the offsets, and that of the mask,
      image by image as if it had the smaller shape (microsoft/DynamicHead#25).
    * ``cropped``: the top left corner, as in mmdetection (open-mmlab/mmdetection#11150).

    Args:
        offsets_and_masks: (B, 27, H, W).
        size_hw: height and width of the coarser level.
        rule: how.

    Returns:
        (B, 27, *size_hw).
    """
    height, width = size_hw
    if rule == "resized":
        return resize(offsets_and_masks, size_hw)
    if rule == "cropped":
        return offsets_and_masks[:, :, :height, :width]
    prefixes = [
        each.flatten(1)[:, : each.shape[1] * height * width]
        for each in (offsets_and_masks[:, :18], offsets_and_masks[:, 18:])
    ]
    return torch.cat(prefixes, dim=1).view(offsets_and_masks.shape[0], 27, height, width)


def resize(x: Tensor, size_hw: Sequence[int]) -> Tensor:
    """Interpolate maps (B, K, H, W) so that corner pixels fall on corner pixels."""
    return F.interpolate(x, size=list(size_hw), mode="bilinear", align_corners=True)


def halve(x: Tensor) -> Tensor:
    """Average 2 x 2 pixels, fewer at the border of an odd size, so that none is lost."""
    return F.avg_pool2d(x, kernel_size=2, ceil_mode=True, count_include_pad=False)
