"""A batch norm with fixed statistics, as one pass over the map."""

import torch
from torch import Tensor
from torchvision.ops import FrozenBatchNorm2d


class OnePassFrozenBatchNorm2d(FrozenBatchNorm2d):  # type: ignore[misc]  # untyped base
    """Torchvision's frozen batch norm, which takes one pass to multiply and another to add.

    Channels-last maps gain as much by this as by folding the norm into the convolution before it.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift (B, C, H, W) by the stored statistics."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return torch.addcmul(shift[:, None, None], x, scale[:, None, None])
