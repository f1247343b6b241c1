"""DyHead: a stack of blocks on a feature pyramid, optionally as a small learned change of it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dyhead_det.dyhead.block import Attention, CoarseOffsets, DyHeadBlock, Spatial, check_counts
from dyhead_det.dyhead.dynamic_relu import CoefficientsOf
from dyhead_det.dyhead.fast import attend_fast
from dyhead_det.dyhead.pyramid import Pyramid, list_levels, with_levels
from dyhead_det.dyhead.pyramid_layout import PyramidLayoutCache
from dyhead_det.ops.deform_conv import (
    DeformBackend,
    check_backend,
    feature_conv,
    resolve_backend,
)
from dyhead_det.ops.gather.deform_conv import FeatureConv


class DyHead(nn.Module):
    """A stack of DyHead blocks on a feature pyramid (Dai et al., arXiv 2106.08322).

    The defaults are those of the shipped configurations. Published weights come from another start:
    ``zero_init_offsets=False, residual=False`` and ``coarse_offsets="flattened"`` (the authors'
    code) or ``"cropped"`` (mmdetection).

    Args:
        channels: C of every map, in and out; a multiple of 16.
        num_blocks: how many blocks, six in the paper.
        attention: which of the three attentions; one that is left out has no parameters.
        spatial: spatial attention by ``deform``, a modulated deformable convolution, or by
            ``conv``, an ordinary one.
        dynamic_relu: coefficients of task attention: of each ``channel``, or ``shared`` by all.
        coarse_offsets: how offsets come to the next coarser level, see `bring_to_coarser`.
        zero_init_offsets: start the convolution that makes offsets and masks at zero.
        residual: return ``x + residual_scale * stack(x)``, the scale learned per channel.
        residual_scale: where that scale starts. A small one hardly touches a detector that already
            works, and stays small for hundreds of steps, DyHead as good as off.
        deform_backend: what computes deformable convolutions, see `ops/deform_conv.py`.

    Raises:
        ValueError: an option that does not exist, channels that do not form 16 groups, or no block
            at all.

    Example:
        >>> import torch
        >>> from dyhead_det.dyhead.head import DyHead
        >>> dyhead = DyHead(64, num_blocks=2)
        >>> p3, p4 = torch.rand(1, 64, 20, 28), torch.rand(1, 64, 10, 14)
        >>> [tuple(x.shape) for x in dyhead([p3, p4])]
        [(1, 64, 20, 28), (1, 64, 10, 14)]
        >>> list(dyhead({"p3": p3, "p4": p4}))
        ['p3', 'p4']
    """

    def __init__(
        self,
        channels: int,
        num_blocks: int = 6,
        *,
        attention: Sequence[Attention] = ("scale", "spatial", "task"),
        spatial: Spatial = "deform",
        dynamic_relu: CoefficientsOf = "channel",
        coarse_offsets: CoarseOffsets = "resized",
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
        # `attend_fast` knows the block with all its modules.
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
        self.residual_scale: (
            nn.Parameter | None
        )  # declared here, since a class's would hide the float
        self.register_parameter("residual_scale", scale)
        self._layouts = PyramidLayoutCache()

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
        return with_levels(pyramid, self.after_blocks(levels, self._attend(levels)))

    def after_blocks(self, levels: list[Tensor], attended: list[Tensor]) -> list[Tensor]:
        """Return the result for a pyramid and what the last block made of it, of equal shapes."""
        if self.residual_scale is not None:
            scale = self.residual_scale[:, None, None]
            attended = [x + scale * change for x, change in zip(levels, attended, strict=True)]
        # The scale, and norms under autocast, are float32; the maps stay of the type they came in.
        return [new.to(x.dtype) for x, new in zip(levels, attended, strict=True)]

    def backend_for(self, x: Tensor) -> tuple[DeformBackend, FeatureConv | None]:
        """Return what convolves maps like ``x``; and how, if `attend_fast` is taken."""
        backend = resolve_backend(self.deform_backend, x, by_features=self.can_be_fast)
        return backend, feature_conv(backend) if self.can_be_fast else None

    def _attend(self, levels: list[Tensor]) -> list[Tensor]:
        backend, convolve = self.backend_for(levels[0])
        if convolve is not None:
            return attend_fast(self.blocks, levels, self._layouts, convolve)
        for block in self.blocks:
            # Compiled blocks would show PyTorch's compiler kernels that it need not know.
            run = block.forward if backend == "triton" else block
            levels = run(levels, backend)
        return levels
