"""A batch norm with fixed statistics, as one pass over the map and in the map's type."""

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d


class OnePassFrozenBatchNorm2d(FrozenBatchNorm2d):  # type: ignore[misc]  # untyped base
    """Torchvision's frozen batch norm, which takes one pass to multiply and another to add.

    Channels-last maps gain as much by this as by folding the norm into the convolution before it.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift (B, C, H, W) by the stored statistics; the result has the type of x.

        Under autocast x comes in half precision. It is multiplied in float32 and rounded once; left
        in float32, whatever follows would keep twice the memory for backward.
        """
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return torch.addcmul(shift[:, None, None], x, scale[:, None, None]).to(x.dtype)


class OnePassFrozenBatchNormAct2d(OnePassFrozenBatchNorm2d):
    """The same for timm's batch norms, which drop and activate what they have normalized."""

    def __init__(self, num_features: int, *, eps: float, drop: nn.Module, act: nn.Module) -> None:
        super().__init__(num_features, eps=eps)
        self.drop = drop
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (B, C, H, W), drop, activate; the result has the type of x."""
        activated: Tensor = self.act(self.drop(super().forward(x)))
        return activated
