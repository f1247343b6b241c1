"""What a detector costs: parameters and multiply-accumulates by module, without running it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from dyhead_det.config.schema import ModelConfig
from dyhead_det.models.backbones.pyramid import Levels
from dyhead_det.models.detectors import Detector, build_detector

_GIGA = 1e9


@dataclass(frozen=True, slots=True)
class ModuleCost:
    """One module of a detector: its parameters, and 10^9 multiply-accumulates for one image."""

    name: str
    num_parameters: int
    gmacs: float


@dataclass(frozen=True, slots=True)
class DetectorCost:
    """The modules of a detector, for images padded to `size_hw`."""

    modules: tuple[ModuleCost, ...]
    levels: Levels
    size_hw: tuple[int, int]

    @property
    def total(self) -> ModuleCost:
        """All modules together."""
        return ModuleCost(
            "total",
            sum(module.num_parameters for module in self.modules),
            sum(module.gmacs for module in self.modules),
        )


def measure_cost(
    config: ModelConfig, *, num_classes: int, size_hw: tuple[int, int]
) -> DetectorCost:
    """Count parameters and multiply-accumulates of backbone, FPN, DyHead and heads.

    Convolutions and matrix products count, elementwise work does not, as in the tables of papers.
    A deformable convolution counts as the plain convolution of its shape. The heads of a two-stage
    detector count for the most proposals that they may get.

    Args:
        config: The model.
        num_classes: K.
        size_hw: Height and width of the resized image; padded here as the detector pads.
    """
    if config.dyhead is not None:  # the one backend that is a single operator with a known cost
        dyhead = config.dyhead.model_copy(update={"deform_backend": "torchvision"})
        config = config.model_copy(update={"dyhead": dyhead})
    # Built with values: some initializations draw again until all of them lie in a range.
    detector = build_detector(config, num_classes=num_classes, load_backbone_weights=False).eval()
    with FakeTensorMode(allow_non_fake_inputs=True):
        return _measure(detector, size_hw)


def _measure(detector: Detector, size_hw: tuple[int, int]) -> DetectorCost:
    """Do the work of `measure_cost` where tensors have shapes but no values."""
    backbone = detector.backbone
    divisor = detector.transform.size_divisible
    height, width = (-(-size // divisor) * divisor for size in size_hw)
    costs: list[ModuleCost] = []

    def count(name: str, modules: Sequence[nn.Module], run: Callable[[], object]) -> None:
        with FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter, torch.no_grad():
            run()
        num_parameters = sum(p.numel() for module in modules for p in module.parameters())
        costs.append(ModuleCost(name, num_parameters, counter.get_total_flops() / 2 / _GIGA))

    images = torch.zeros(1, 3, height, width)
    stages = backbone.body(images)
    used = {name: stages[name] for name in detector.spec.levels.stages}
    maps = list(backbone.fpn(used).values())
    count("backbone", [backbone.body], lambda: backbone.body(images))
    count("FPN", [backbone.fpn], lambda: backbone.fpn(used))
    dyhead = backbone.dyhead
    if dyhead is not None:
        count("DyHead", [dyhead], lambda: dyhead(maps))
    heads = [child for name, child in detector.network.named_children() if name != "backbone"]
    count("heads", heads, lambda: detector.spec.run_heads(detector.network, maps))
    return DetectorCost(tuple(costs), detector.spec.levels, (height, width))


def _deform_conv2d_flops(
    _x_shape: Sequence[int],
    weight_shape: Sequence[int],
    *_: object,
    out_shape: Sequence[int],
    **__: object,
) -> int:
    """Two operations per multiply-accumulate of the plain convolution of this shape."""
    return 2 * math.prod(out_shape) * math.prod(weight_shape[1:])


_FORMULAS = {torch.ops.torchvision.deform_conv2d: _deform_conv2d_flops}
