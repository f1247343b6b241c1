"""DyHead on the paper's L x S x C tensor: all levels resized to one size, stacked, and split again.

This is DyHead after the text of its paper (Dai et al., arXiv 2106.08322, section 3), where
``block.py`` follows the authors' code. All levels are brought to the size of the median one
and stacked to F, (B, L, C, H, W); the blocks work on F; then F is split by level, brought back to
the levels' sizes and added to the maps it came from, so that RoIAlign and the heads, which see an
ordinary pyramid, keep the full detail.

The paper's are:

* equation 2: ``W(F) = pi_C(pi_S(pi_L(F) F) F) F``, three attentions one after the other;
* equation 3, scale: one number per level, ``max(0, min(1, (f(pooled F) + 1) / 2))``, f linear;
* equation 4, spatial: sample K = 9 locations moved by offsets, weigh each by its mask (the paper's
  importance), average over levels; offsets and masks come from the median level and are the same
  for all levels;
* equation 5, task: ``max(a1 F_c + b1, a2 F_c + b2)``, the coefficients from the mean over L and S
  by two linear layers, a normalization and a sigmoid shifted to [-1, 1].

Our reading, where the paper is silent or can't be meant to the letter:

* equation 4 would sum L away, after which there were no levels left: as in the authors' code, a
  level averages over itself and its two neighbors only. The weights w depend on the difference of
  levels, so that their number does not depend on L, and mix channels, as the code's do;
* a group norm follows equation 4, as in the code: without it six blocks shrink F to nothing;
* f in equation 3 sees the channel means of a level, so that it does not depend on L either;
* the coefficients of equation 5 vary around those of a ReLU, a1 = 1 and the others 0, by 1 (slopes)
  and 1/2 (shifts), as in dynamic ReLU (arXiv 2003.10027);
* resizing: finer levels are averaged 2 x 2 once per step, coarser ones interpolated; of an even
  number of levels the finer one in the middle is the median;
* the addition at the end.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dyhead_det.dyhead.block import (
    NUM_GROUPS,
    Attention,
    Spatial,
    build_offset_conv,
    check_counts,
    check_options,
    halve,
    split_offsets_and_masks,
)
from dyhead_det.dyhead.dynamic_relu import CoefficientsOf
from dyhead_det.dyhead.pyramid import Pyramid, list_levels, with_levels
from dyhead_det.ops.deform_conv import DeformBackend, check_backend, modulated_deform_conv2d


class StackedDyHead(nn.Module):
    """A stack of blocks on the paper's tensor, added to the pyramid it was given.

    Args:
        channels: C of every map, in and out; a multiple of 16.
        num_blocks: how many blocks.
        attention: which of the three attentions; one that is left out has no parameters.
        spatial: spatial attention by ``deform``, a modulated deformable convolution, or by
            ``conv``, an ordinary one.
        dynamic_relu: coefficients of task attention: of each ``channel``, or ``shared`` by all.
        zero_init_offsets: start the convolution that makes offsets and masks at zero.
        residual: add ``residual_scale * stack(x)`` to x, the scale learned per channel. Without it
            the stack's result is added as it is.
        residual_scale: where that scale starts. A small one hardly touches a detector that already
            works, and stays small for hundreds of steps, DyHead as good as off.
        deform_backend: what computes deformable convolutions, see `ops/deform_conv.py`.

    Raises:
        ValueError: an option that does not exist, or channels that do not form 16 groups.

    Example:
        >>> import torch
        >>> from dyhead_det.dyhead.stacked import StackedDyHead
        >>> dyhead = StackedDyHead(64, num_blocks=2)
        >>> p3, p4 = torch.rand(1, 64, 20, 28), torch.rand(1, 64, 10, 14)
        >>> [tuple(x.shape) for x in dyhead([p3, p4])]
        [(1, 64, 20, 28), (1, 64, 10, 14)]
    """

    def __init__(
        self,
        channels: int,
        num_blocks: int = 6,
        *,
        attention: Sequence[Attention] = ("scale", "spatial", "task"),
        spatial: Spatial = "deform",
        dynamic_relu: CoefficientsOf = "channel",
        zero_init_offsets: bool = True,
        residual: bool = True,
        residual_scale: float = 1.0,
        deform_backend: DeformBackend = "auto",
    ) -> None:
        super().__init__()
        check_backend(deform_backend)
        check_counts(channels=channels, num_blocks=num_blocks)
        self.channels = channels
        self.deform_backend = deform_backend
        self.blocks = nn.ModuleList(
            StackedBlock(
                channels,
                attention=attention,
                spatial=spatial,
                dynamic_relu=dynamic_relu,
                zero_init_offsets=zero_init_offsets,
            )
            for _ in range(num_blocks)
        )
        scale = nn.Parameter(torch.full((channels,), residual_scale)) if residual else None
        self.residual_scale: (
            nn.Parameter | None
        )  # declared here, since a class's would hide the float
        self.register_parameter("residual_scale", scale)

    def forward(self, pyramid: Pyramid) -> Pyramid:
        """Attend.

        Args:
            pyramid: L >= 1 maps (B, C, H_l, W_l), fine to coarse, each half the size (rounded up)
                of the one before; a list, or a dict of maps by level name.

        Returns:
            Maps of the same shapes and types, in a container like that of the input.

        Raises:
            ValueError: maps that are not such a pyramid.
        """
        levels = list_levels(pyramid, channels=self.channels)
        stacked = stack_levels(levels)  # (B, L, C, H, W)
        for block in self.blocks:
            stacked = block(stacked, self.deform_backend)
        return with_levels(pyramid, self.after_blocks(levels, stacked))

    def after_blocks(self, levels: list[Tensor], stacked: Tensor) -> list[Tensor]:
        """Return the result for a pyramid and what the last block made of it, (B, L, C, H, W)."""
        changes = split_levels(stacked, [x.shape[-2:] for x in levels])
        if self.residual_scale is not None:
            scale = self.residual_scale[:, None, None]
            changes = [scale * change for change in changes]
        # The scale, and norms under autocast, are float32; the maps stay of the type they came in.
        return [(x + change).to(x.dtype) for x, change in zip(levels, changes, strict=True)]


class StackedBlock(nn.Module):
    """Equation 2: scale, spatial and task attention, or those of them that are asked for.

    As in `DyHeadBlock`, an attention that is left out is a step that is left out, its parameters
    too. Here only spatial attention reads a level's neighbors.
    """

    def __init__(
        self,
        channels: int,
        *,
        attention: Sequence[Attention],
        spatial: Spatial,
        dynamic_relu: CoefficientsOf,
        zero_init_offsets: bool,
    ) -> None:
        super().__init__()
        check_options(attention, spatial, dynamic_relu)
        self.scale = StackedScaleAttention(channels) if "scale" in attention else None
        self.spatial = (
            StackedSpatialAttention(channels, spatial=spatial, zero_init_offsets=zero_init_offsets)
            if "spatial" in attention
            else None
        )
        self.task = (
            StackedTaskAttention(channels, dynamic_relu=dynamic_relu)
            if "task" in attention
            else None
        )

    def forward(self, x: Tensor, deform_backend: DeformBackend) -> Tensor:
        """Map (B, L, C, H, W) to the same shape."""
        if self.scale is not None:
            x = self.scale(x)
        if self.spatial is not None:
            x = self.spatial(x, deform_backend)
        if self.task is not None:
            x = self.task(x)
        return x


class StackedScaleAttention(nn.Module):
    """Equation 3: weigh each level by one number per image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Linear(channels, 1)
        nn.init.normal_(self.score.weight, std=0.01)
        nn.init.zeros_(self.score.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, L, C, H, W) to the same shape."""
        return x * self.gates(x)[..., None, None]

    def gates(self, x: Tensor) -> Tensor:
        """Return the numbers, (B, L, 1), for (B, L, C, H, W)."""
        scores = self.score(x.mean(dim=(3, 4)))  # (B, L, 1)
        gates: Tensor = ((scores + 1) / 2).clamp(0, 1)
        return gates


class StackedSpatialAttention(nn.Module):
    """Equation 4: sample every level at the locations that the median level chooses.

    Attributes:
        weight: kernels for the finer neighbor, the level itself and the coarser neighbor,
            (3, C, C, 3, 3).
        offset_and_mask: makes offsets and masks; absent in the variant ``conv``, which samples the
            nine pixels around each pixel, all equally important.
    """

    def __init__(self, channels: int, *, spatial: Spatial, zero_init_offsets: bool) -> None:
        super().__init__()
        bound = 1 / math.sqrt(9 * channels)
        self.weight = nn.Parameter(torch.empty(3, channels, channels, 3, 3).uniform_(-bound, bound))
        self.norm = nn.GroupNorm(NUM_GROUPS, channels)
        self.offset_and_mask: nn.Conv2d | None = None
        if spatial == "deform":
            self.offset_and_mask = build_offset_conv(channels, zero_init=zero_init_offsets)

    def forward(self, x: Tensor, deform_backend: DeformBackend) -> Tensor:
        """Map (B, L, C, H, W) to the same shape."""
        num_levels = x.shape[1]
        seen = self._read_levels(x, deform_backend)  # (B, L, 3, C, H, W)
        as_finer, as_same, as_coarser = seen.unbind(dim=2)  # what level l tells to l + 1, l, l - 1
        nothing = torch.zeros_like(as_same[:, :1])
        total = (
            as_same
            + torch.cat((nothing, as_finer[:, :-1]), dim=1)
            + torch.cat((as_coarser[:, 1:], nothing), dim=1)
        )
        num_read = total.new_full((num_levels, 1, 1, 1), 3)
        num_read[0] -= 1  # nothing finer
        num_read[-1] -= 1  # nothing coarser
        mean = total / num_read
        normed: Tensor = self.norm(mean.flatten(0, 1))
        return normed.view_as(x)

    def _read_levels(self, x: Tensor, deform_backend: DeformBackend) -> Tensor:
        """Convolve each level with all three kernels: it is sampled once for all its readers."""
        levels = x.flatten(0, 1)  # (B * L, C, H, W)
        weight = self.weight.flatten(0, 1)  # (3 * C, C, 3, 3)
        if self.offset_and_mask is None:
            seen = F.conv2d(levels, weight, padding=1)
        else:
            median = x[:, median_level(x.shape[1])]
            offset, mask = (
                each[:, None].expand(-1, x.shape[1], -1, -1, -1).flatten(0, 1)  # (B * L, ., H, W)
                for each in split_offsets_and_masks(self.offset_and_mask(median))
            )
            no_bias = weight.new_zeros(len(weight))
            seen = modulated_deform_conv2d(
                levels, offset, mask, weight, no_bias, stride=1, backend=deform_backend
            )
        return seen.view(*x.shape[:2], 3, *x.shape[2:])


class StackedTaskAttention(nn.Module):
    """Equation 5: an activation whose two slopes and shifts the image itself chooses.

    ``channel`` gives each channel coefficients of its own, ``shared`` the same to all (variants B
    and A of arXiv 2003.10027).
    """

    def __init__(self, channels: int, *, dynamic_relu: CoefficientsOf) -> None:
        super().__init__()
        num_functions = channels if dynamic_relu == "channel" else 1
        self.squeeze = nn.Linear(channels, channels // 4)
        self.expand = nn.Linear(channels // 4, 4 * num_functions)
        self.norm = nn.LayerNorm(4 * num_functions)
        # A normalized coefficient would start anywhere in [-1, 1]; so it starts near a ReLU's.
        nn.init.constant_(self.norm.weight, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, L, C, H, W) to the same shape."""
        slope_1, shift_1, slope_2, shift_2 = (
            each[:, None, :, None, None] for each in self.coefficients(x)
        )
        return torch.maximum(slope_1 * x + shift_1, slope_2 * x + shift_2)

    def coefficients(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return slope_1, shift_1, slope_2 and shift_2, each (B, C) or (B, 1), for such maps."""
        hidden = F.relu(self.squeeze(x.mean(dim=(1, 3, 4))))  # (B, C / 4)
        theta = 2 * self.norm(self.expand(hidden)).sigmoid() - 1  # (B, 4 * C) or (B, 4)
        slope_1, shift_1, slope_2, shift_2 = theta.chunk(4, dim=1)
        return 1 + slope_1, shift_1 / 2, slope_2, shift_2 / 2


def median_level(num_levels: int) -> int:
    """Return the index of the level in the middle, the finer one of two."""
    return (num_levels - 1) // 2


def stack_levels(levels: Sequence[Tensor]) -> Tensor:
    """Bring maps (B, C, H_l, W_l) to the size of the median one and stack them: (B, L, C, H, W)."""
    median = median_level(len(levels))
    size_hw = levels[median].shape[-2:]
    resized = [
        change_level(x, num_steps=median - level, size_hw=size_hw) for level, x in enumerate(levels)
    ]
    return torch.stack(resized, dim=1)


def split_levels(stacked: Tensor, sizes_hw: Sequence[Sequence[int]]) -> list[Tensor]:
    """Split (B, L, C, H, W) by level and bring each map to its level's own size."""
    median = median_level(len(sizes_hw))
    return [
        change_level(x, num_steps=level - median, size_hw=size_hw)
        for level, (x, size_hw) in enumerate(zip(stacked.unbind(dim=1), sizes_hw, strict=True))
    ]


def change_level(x: Tensor, *, num_steps: int, size_hw: Sequence[int]) -> Tensor:
    """Bring maps (B, C, H, W) to a coarser level, ``num_steps`` up, or to a finer one, below zero.

    A step up halves. The way down interpolates to ``size_hw``. Both take pixels for squares that
    lie side by side.
    """
    for _ in range(num_steps):
        x = halve(x)
    if num_steps < 0:
        return F.interpolate(x, size=list(size_hw), mode="bilinear", align_corners=False)
    return x
