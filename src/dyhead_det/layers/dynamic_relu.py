"""Dynamic ReLU: a piecewise linear activation whose two pieces the image itself chooses.

Chen et al., "Dynamic ReLU" (arXiv 2003.10027), variant B: coefficients per channel and image,
shared by all places. DyHead's task-aware attention (arXiv 2106.08322, equation 5).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DynamicReLU(nn.Module):
    """max(slope_1 x + shift_1, slope_2 x + shift_2), the coefficients computed from the mean of x.

    An ordinary ReLU has the slopes 1 and 0 and no shifts; the coefficients move around these within
    [0, 2], [-1, 1] and [-0.5, 0.5].
    """

    def __init__(self, channels: int, *, reduction: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // reduction)
        self.expand = nn.Linear(channels // reduction, 4 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """Activate maps of shape (B, C, H, W)."""
        coefficients = self.coefficients(x.mean(dim=(2, 3)))
        slope_1, shift_1, slope_2, shift_2 = (each[:, :, None, None] for each in coefficients)
        return torch.maximum(slope_1 * x + shift_1, slope_2 * x + shift_2)

    def coefficients(self, pooled: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return slope_1, shift_1, slope_2 and shift_2, each (B, C), for channel means (B, C)."""
        hidden = F.relu(self.squeeze(pooled))  # (B, C / reduction)
        slope_1, shift_1, slope_2, shift_2 = F.hardsigmoid(self.expand(hidden)).chunk(4, dim=-1)
        return 2 * slope_1, shift_1 - 0.5, 2 * slope_2 - 1, shift_2 - 0.5
