"""What a backbone returns for a small black image: channels and strides, found by trying."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def probe(backbone: nn.Module, side: int) -> dict[str, Tensor]:
    """Return the maps of a black image of `side` pixels, leaving statistics and mode as they were.

    Args:
        backbone: Images (B, 3, H, W) to maps by name, on any device.
        side: Pixels.
    """
    parameter = next(backbone.parameters(), torch.zeros(0))
    image = torch.zeros(1, 3, side, side, device=parameter.device, dtype=parameter.dtype)
    with _evaluating(backbone):
        maps: dict[str, Tensor] = backbone(image)
    return maps


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Bring a module into evaluation mode, and each of its modules back into its own."""
    modes = [(each, each.training) for each in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for each, mode in modes:
            each.training = mode
