"""Body + FPN + DyHead behind torchvision's backbone contract.

A detector sees a module with `out_channels` that returns an ordered dict of maps, fine to coarse.
It does not know whether DyHead is there.
"""

import os
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import (
    ExtraFPNBlock,
    LastLevelMaxPool,
    LastLevelP6P7,
)

from dyhead_det.config.schema import DyHeadConfig, ModelConfig
from dyhead_det.dyhead.head import DyHead
from dyhead_det.dyhead.stacked import StackedDyHead
from dyhead_det.errors import ConfigError
from dyhead_det.models.backbones.build import build_backbone, measure_channels
from dyhead_det.models.backbones.swin import always_shift_windows
from dyhead_det.models.compat.layers import LastLevelP6P7WithoutReLU, use_batch_norm_kernel
from dyhead_det.ops.deform_conv import DeformBackend

BACKEND_VARIABLE = "DYHEAD_DET_DEFORM_BACKEND"
"""Environment variable that replaces ``auto``, to find out whether a bug sits in a backend."""


@dataclass(frozen=True, slots=True)
class Levels:
    """Which levels a detector works on.

    stages: stages of the body that enter the FPN.
    names: levels of the pyramid, fine to coarse, the top blocks' last.
    top: how the levels above the body come about.
    """

    stages: tuple[str, ...]
    names: tuple[str, ...]
    top: Literal["max_pool", "convs"]

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels per cell of every level: level p_k has 2^k."""
        return tuple(2 ** int(name.removeprefix("p")) for name in self.names)


P2_TO_P6 = Levels(("c2", "c3", "c4", "c5"), ("p2", "p3", "p4", "p5", "p6"), "max_pool")
P3_TO_P7 = Levels(("c3", "c4", "c5"), ("p3", "p4", "p5", "p6", "p7"), "convs")


class DyHeadBackbone(nn.Module):
    """Images -> body -> FPN with top blocks -> DyHead (if any) -> pyramid."""

    def __init__(
        self,
        body: nn.Module,
        fpn: FeaturePyramidNetwork,
        dyhead: nn.Module | None,
        *,
        levels: Levels,
        out_channels: int,
    ) -> None:
        super().__init__()
        self.body = body
        self.fpn = fpn
        self.dyhead = dyhead
        self.levels = levels
        self.out_channels = out_channels

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Return the pyramid.

        Args:
            images: (B, 3, H, W), normalised; with DyHead H and W must be multiples of the
                coarsest stride, so that every level has half the size of the one before.

        Returns:
            Maps (B, out_channels, H / stride_l, W / stride_l) by level name, fine to coarse.
        """
        stages = self.body(images)
        used = OrderedDict((name, stages[name]) for name in self.levels.stages)
        maps = list(self.fpn(used).values())
        if self.dyhead is not None:
            maps = self.dyhead(maps)
        return OrderedDict(zip(self.levels.names, maps, strict=True))


def build_dyhead_backbone(
    config: ModelConfig, levels: Levels, *, load_backbone_weights: bool
) -> DyHeadBackbone:
    """Build the backbone of a detector that works on the given levels."""
    body = build_backbone(
        config.backbone, stage_names=levels.stages, load_weights=load_backbone_weights
    )
    channels = measure_channels(body)
    fpn = FeaturePyramidNetwork(
        in_channels_list=[channels[name] for name in levels.stages],
        out_channels=config.channels,
        extra_blocks=_build_top_block(config, levels),
    )
    if config.compat != "none":
        use_batch_norm_kernel(body)
        always_shift_windows(body)
    dyhead = None if config.dyhead is None else build_dyhead(config.dyhead, config.channels)
    return DyHeadBackbone(body, fpn, dyhead, levels=levels, out_channels=config.channels)


def _build_top_block(config: ModelConfig, levels: Levels) -> ExtraFPNBlock:
    if levels.top == "max_pool":
        return LastLevelMaxPool()
    block = LastLevelP6P7WithoutReLU if config.compat == "mmdet" else LastLevelP6P7
    return block(config.channels, config.channels)  # from P5, as all official models


def build_dyhead(config: DyHeadConfig, channels: int) -> DyHead | StackedDyHead:
    """Build the stack of blocks.

    Raises:
        ConfigError: see `backend_from_environment`.
    """
    deform_backend = backend_from_environment(config.deform_backend)
    if config.scheme == "stacked":
        return StackedDyHead(
            channels,
            config.num_blocks,
            attention=config.attention,
            spatial=config.spatial,
            dynamic_relu=config.dynamic_relu,
            zero_init_offsets=config.zero_init_offsets,
            residual=config.residual,
            residual_scale=config.residual_scale,
            deform_backend=deform_backend,
        )
    return DyHead(
        channels,
        config.num_blocks,
        attention=config.attention,
        spatial=config.spatial,
        dynamic_relu=config.dynamic_relu,
        coarse_offsets=config.coarse_offsets,
        zero_init_offsets=config.zero_init_offsets,
        residual=config.residual,
        residual_scale=config.residual_scale,
        deform_backend=deform_backend,
    )


def backend_from_environment(backend: DeformBackend) -> DeformBackend:
    """Return the backend that `BACKEND_VARIABLE` names in place of ``auto``; other ones stay.

    Raises:
        ConfigError: the environment names no such backend.
    """
    named = os.environ.get(BACKEND_VARIABLE)
    if backend != "auto" or named is None:
        return backend
    known: tuple[DeformBackend, ...] = get_args(DeformBackend)
    for each in known:
        if named == each:
            return each
    raise ConfigError(
        f"environment variable {BACKEND_VARIABLE}: {named!r} is none of {', '.join(known)}"
    )
