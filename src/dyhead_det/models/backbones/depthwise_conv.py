"""Depthwise convolutions that train fast on a CPU in bfloat16.

There PyTorch computes their gradient in bfloat16 two to seven times slower than in float32, which
made training EfficientNet-lite0 in bfloat16 slower than in float32 throughout.
"""

from types import MethodType

import torch
from torch import Tensor, nn

from dyhead_det.models.full_precision import full_precision


def train_depthwise_in_float32(network: nn.Module) -> None:
    """Let depthwise convolutions compute in float32 where autocast would train them on a CPU.

    Everywhere else (GPU, inference, no autocast) they compute what they did.

    Args:
        network: Changed in place; a method of each such convolution is replaced by one that is
            bound to it, so that copies of the network have their own.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            module.forward = MethodType(_forward, module)  # type: ignore[method-assign]


def _forward(conv: nn.Conv2d, x: Tensor) -> Tensor:
    forward = type(conv).forward  # a subclass of timm pads the map first
    is_slow = (
        torch.is_grad_enabled() and x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    )
    if not is_slow:
        return forward(conv, x)
    with torch.autocast("cpu", enabled=False):
        return forward(conv, full_precision(x))
