"""Boxes in float32 where a model runs in half precision.

bfloat16 keeps eight digits: at 300 pixels a coordinate would be off by one. Torchvision makes
anchors in the type of the maps and turns deltas into boxes in the type of the deltas, so under
autocast it learns from, and returns, such boxes.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator


def full_precision(x: Tensor) -> Tensor:
    """Return half precision as float32, and float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def return_full_precision(head: nn.Module) -> None:
    """Let a head return its logits and deltas in float32 at least: tensors, in whatever they lie.

    Args:
        head: Changed in place; what it computes stays in the precision of its maps.
    """
    head.register_forward_hook(_promote_outputs)


def _promote_outputs(module: nn.Module, inputs: object, outputs: object) -> object:
    del module, inputs
    return _promoted(outputs)


def _promoted(value: object) -> object:
    if isinstance(value, Tensor):
        return full_precision(value)
    if isinstance(value, Mapping):
        return {key: _promoted(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_promoted(each) for each in value)
    return value


class FullPrecisionAnchorGenerator(AnchorGenerator):  # type: ignore[misc]  # untyped base
    """Torchvision's anchors, in float32 at least."""

    def set_cell_anchors(self, dtype: torch.dtype, device: torch.device) -> None:
        """Keep the anchors of a position, from which those of all positions take their type."""
        super().set_cell_anchors(torch.promote_types(dtype, torch.float32), device)
