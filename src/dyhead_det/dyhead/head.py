"""DyHead: a stack of blocks on a pyramid, optionally as a small learned change of it."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from dyhead_det.dyhead.block import Attention, CoarseOffsets, DyHeadBlock, Spatial
from dyhead_det.dyhead.dynamic_relu import CoefficientsOf
from dyhead_det.dyhead.fast import attend_fast
from dyhead_det.ops.deform_conv import DeformBackend, resolve_backend


class DyHead(nn.Module):
    """A stack of blocks, optionally as a small learned change of the pyramid it was given.

    With ``residual`` the result is ``x + residual_scale * stack(x)``, the scale learned per
    channel: a detector that already works is hardly touched at the first step.
    """

    residual_scale: nn.Parameter | None

    def __init__(
        self,
        channels: int,
        num_blocks: int,
        *,
        attention: Sequence[Attention],
        spatial: Spatial,
        dynamic_relu: CoefficientsOf,
        coarse_offsets: CoarseOffsets,
        zero_init_offsets: bool,
        residual: bool,
        residual_scale: float,
        deform_backend: DeformBackend,
    ) -> None:
        super().__init__()
        self.deform_backend = deform_backend
        # `attend_fast` knows the block with all its parts.
        self.can_be_fast = len(set(attention)) == 3 and spatial == "deform"
        self.blocks = nn.ModuleList(
            DyHeadBlock(
                channels,
                attention=attention,
                spatial=spatial,
                dynamic_relu=dynamic_relu,
                coarse_offsets=coarse_offsets,
                zero_init_offsets=zero_init_offsets,
            )
            for _ in range(num_blocks)
        )
        scale = nn.Parameter(torch.full((channels,), residual_scale)) if residual else None
        self.register_parameter("residual_scale", scale)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """Attend.

        Args:
            levels: L >= 1 maps (B, C, H_l, W_l), fine to coarse, each half the size (rounded up) of
                the one before.

        Returns:
            Maps of the same shapes.

        Raises:
            ValueError: maps that are not such a pyramid.
        """
        check_pyramid(levels)
        backend = resolve_backend(self.deform_backend, levels[0])
        if backend == "gather" and self.can_be_fast:
            attended = attend_fast(self.blocks, levels)
        else:
            attended = levels
            for block in self.blocks:
                attended = block(attended, backend)
        if self.residual_scale is None:
            return attended
        scale = self.residual_scale[:, None, None]
        return [x + scale * change for x, change in zip(levels, attended, strict=True)]


def check_pyramid(levels: list[Tensor]) -> None:
    """Refuse maps that are no pyramid: at least one, each half (rounded up) the one before.

    Raises:
        ValueError: naming the first level that does not fit.
    """
    if not levels:
        raise ValueError("DyHead needs at least one pyramid level, got none")
    for level, (finer, coarser) in enumerate(pairwise(levels), start=1):
        expected = (*finer.shape[:2], *(-(-size // 2) for size in finer.shape[2:]))
        if tuple(coarser.shape) != expected:
            raise ValueError(
                f"level {level - 1} is {tuple(finer.shape)}, so DyHead needs {expected} for level "
                f"{level} (half the size, rounded up), got {tuple(coarser.shape)}; pad the images "
                f"to a multiple of the coarsest level's stride"
            )
