"""Backbone, FPN and DyHead behind torchvision's backbone contract.

A detector sees a module with `out_channels` that returns an ordered dict of feature maps, fine to
coarse. It does not know whether DyHead is there.
"""

import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
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
from dyhead_det.models.backbones.probe import probe
from dyhead_det.models.backbones.swin import always_shift_windows
from dyhead_det.models.compat.layers import LastLevelP6P7WithoutReLU, use_batch_norm_kernel
from dyhead_det.models.group_norm import build_group_norm
from dyhead_det.ops.deform_conv import DeformBackend

BACKEND_VARIABLE = "DYHEAD_DET_DEFORM_BACKEND"
"""Environment variable that replaces ``auto``, to find out whether a bug sits in a backend."""


@dataclass(frozen=True, slots=True)
class Levels:
    """Which levels a detector works on.

    stages: stages of the backbone that enter the FPN.
    names: levels of the pyramid, fine to coarse, the top blocks' last; p_k has the stride 2^k.
    top: how the levels above the backbone's come about.
    """

    stages: tuple[str, ...]
    names: tuple[str, ...]
    top: Literal["max_pool", "convs"]

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels per cell of every level."""
        return tuple(2 ** int(name.removeprefix("p")) for name in self.names)

    @property
    def finest(self) -> int:
        """The k of the first level, p_k."""
        return int(self.names[0].removeprefix("p"))


P2_TO_P6 = Levels(("c2", "c3", "c4", "c5"), ("p2", "p3", "p4", "p5", "p6"), "max_pool")
P3_TO_P7 = Levels(("c3", "c4", "c5"), ("p3", "p4", "p5", "p6", "p7"), "convs")


class DyHeadBackbone(nn.Module):
    """Images -> body -> FPN -> DyHead (if any) -> pyramid: a backbone for torchvision's detectors.

    Names of weights are those of torchvision's ``BackboneWithFPN``: ``body.`` and ``fpn.``.

    Attributes:
        out_channels: Channels of every map, as torchvision's detectors ask for.

    Example:
        >>> from torchvision.models import resnet18
        >>> from torchvision.models.detection import FasterRCNN
        >>> from torchvision.models.feature_extraction import create_feature_extractor
        >>> from torchvision.ops import FeaturePyramidNetwork
        >>> from dyhead_det import DyHead, DyHeadBackbone
        >>> stages = {"layer1": "0", "layer2": "1", "layer3": "2", "layer4": "3"}
        >>> body = create_feature_extractor(resnet18(), stages)
        >>> fpn = FeaturePyramidNetwork([64, 128, 256, 512], 256, LastLevelMaxPool())
        >>> backbone = DyHeadBackbone(body, fpn, DyHead(256, num_blocks=2))
        >>> detector = FasterRCNN(backbone, num_classes=3).eval()
        >>> sorted(detector([torch.rand(3, 200, 300)])[0])
        ['boxes', 'labels', 'scores']
    """

    def __init__(
        self,
        body: nn.Module,
        fpn: nn.Module,
        dyhead: nn.Module | None,
        *,
        stages: Sequence[str] = (),
        names: Sequence[str] = (),
        out_channels: int | None = None,
    ) -> None:
        """Put the modules one behind the other.

        Args:
            body: Images (B, 3, H, W) to a dict of maps by stage, fine to coarse.
            fpn: Such a dict to a dict of maps of `out_channels`; ``nn.Identity()`` where `body`
                is a pyramid already.
            dyhead: A list of maps to maps of the same shapes, `DyHead` or `StackedDyHead`.
            stages: The maps of `body` that `fpn` takes; all of them if empty.
            names: What the levels are called; as `fpn` calls them if empty.
            out_channels: Channels of a map; only needed where `fpn` is not torchvision's.

        Raises:
            TypeError: `out_channels` is needed and missing.
        """
        super().__init__()
        self.body = body
        self.fpn = fpn
        self.dyhead = dyhead
        self.stages = tuple(stages)
        self.names = tuple(names)
        self.out_channels = _channels_of(fpn) if out_channels is None else out_channels

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Return the pyramid.

        Args:
            images: (B, 3, H, W), normalized; with DyHead every level must have half the size
                (rounded up) of the one before, as it has where H and W are multiples of the
                coarsest stride.

        Returns:
            Maps (B, out_channels, H_l, W_l) by level name, fine to coarse.

        Raises:
            TypeError: `body` does not return maps by name.
        """
        maps_of_body = self.body(images)
        if not isinstance(maps_of_body, Mapping):
            raise TypeError(
                "a backbone must return an ordered dict of feature maps by name, "
                f"{type(self.body).__name__} returned {type(maps_of_body).__name__}"
            )
        used = OrderedDict((name, maps_of_body[name]) for name in self.stages or maps_of_body)
        pyramid = self.fpn(used)
        names, maps = self.names or tuple(pyramid), list(pyramid.values())
        if self.dyhead is not None:
            maps = self.dyhead(maps)
        return OrderedDict(zip(names, maps, strict=True))


def _channels_of(fpn: nn.Module) -> int:
    """Return the channels that torchvision's FPN gives every map."""
    if not isinstance(fpn, FeaturePyramidNetwork):
        raise TypeError(f"give out_channels: {type(fpn).__name__} does not tell its own")
    last_conv = [module for module in fpn.layer_blocks.modules() if isinstance(module, nn.Conv2d)]
    return last_conv[-1].out_channels


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
        norm_layer=build_group_norm if config.fpn_norm == "group" else None,
    )
    if config.compat != "none":
        use_batch_norm_kernel(body)
        always_shift_windows(body)
    return DyHeadBackbone(
        body,
        fpn,
        _build_dyhead_of(config),
        stages=levels.stages,
        names=levels.names,
        out_channels=config.channels,
    )


def _build_top_block(config: ModelConfig, levels: Levels) -> ExtraFPNBlock:
    if levels.top == "max_pool":
        return LastLevelMaxPool()
    of_program = LastLevelP6P7WithoutReLU if config.compat == "mmdet" else LastLevelP6P7
    block = of_program(config.channels, config.channels)  # from P5, as all official models
    if config.fpn_norm == "group":
        # One group: of P7 a few positions are left, sometimes one.
        block.p6 = nn.Sequential(block.p6, nn.GroupNorm(1, config.channels))
        block.p7 = nn.Sequential(block.p7, nn.GroupNorm(1, config.channels))
    return block


def wrap_backbone(backbone: nn.Module, config: ModelConfig, levels: Levels) -> DyHeadBackbone:
    """Put the configured DyHead behind a backbone of the caller's own.

    Args:
        backbone: Images (B, 3, H, W) to an ordered dict of maps, fine to coarse, all of
            `out_channels` channels: torchvision's contract.
        config: With `channels` equal to `out_channels`.
        levels: Those that the detector works on.

    Raises:
        TypeError: The module does not keep the contract.
        ValueError: Its maps have other strides than the detector's levels.
        ConfigError: `config.channels` is another number.
    """
    out_channels = getattr(backbone, "out_channels", None)
    if not isinstance(out_channels, int):
        raise TypeError(
            f"backbone {type(backbone).__name__}: needs the attribute `out_channels`, the number "
            "of channels of every map it returns"
        )
    if config.channels != out_channels:
        raise ConfigError(
            f"model.channels: the backbone {type(backbone).__name__} has maps of {out_channels} "
            f"channels, not {config.channels}; set model.channels={out_channels}"
        )
    fpn = nn.Identity()  # the backbone is a pyramid already
    _require_levels(DyHeadBackbone(backbone, fpn, None, out_channels=out_channels), levels)
    return DyHeadBackbone(
        backbone, fpn, _build_dyhead_of(config), names=levels.names, out_channels=out_channels
    )


def _require_levels(backbone: DyHeadBackbone, levels: Levels) -> None:
    """Compare the maps of a black image with what a detector asks for."""
    side = 2 * levels.strides[-1]
    with torch.no_grad():
        maps = list(probe(backbone, side).values())
    kind = type(backbone.body).__name__
    shapes = [tuple(x.shape[1:]) for x in maps]
    wanted = [(backbone.out_channels, side // s, side // s) for s in levels.strides]
    if shapes != wanted:
        raise ValueError(
            f"backbone {kind}: for images of {side}x{side} pixels this detector needs "
            f"{len(wanted)} maps, fine to coarse, of shapes (channels, height, width) {wanted}, "
            f"got {shapes}"
        )


def _build_dyhead_of(config: ModelConfig) -> DyHead | StackedDyHead | None:
    return None if config.dyhead is None else build_dyhead(config.dyhead, config.channels)


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
