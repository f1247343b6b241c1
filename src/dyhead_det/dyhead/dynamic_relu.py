"""Dynamic ReLU: a piecewise linear activation whose two pieces the image itself chooses.

Chen et al., "Dynamic ReLU" (arXiv 2003.10027): coefficients per image, shared by all pixels; per
channel (variant B) or for all channels the same (variant A). DyHead's task-aware attention (arXiv
2106.08322, equation 5) is variant B.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CoefficientsOf = Literal["channel", "shared"]


class DynamicReLU(nn.Module):
    """max(slope_1 x + shift_1, slope_2 x + shift_2), the coefficients computed from the mean of x.

    An ordinary ReLU has the slopes 1 and 0 and no shifts; the coefficients move around these within
    [0, 2], [-1, 1] and [-0.5, 0.5].
    """

    def __init__(self, channels: int, *, reduction: int, coefficients_of: CoefficientsOf) -> None:
        super().__init__()
        num_functions = channels if coefficients_of == "channel" else 1
        self.squeeze = nn.Linear(channels, channels // reduction)
        self.expand = nn.Linear(channels // reduction, 4 * num_functions)

    def forward(self, x: Tensor) -> Tensor:
        """Activate maps of shape (B, C, H, W)."""
        coefficients = self.coefficients(x.mean(dim=(2, 3)))
        slope_1, shift_1, slope_2, shift_2 = (each[:, :, None, None] for each in coefficients)
        return torch.maximum(slope_1 * x + shift_1, slope_2 * x + shift_2)

    def coefficients(self, pooled: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return slope_1, shift_1, slope_2 and shift_2, each (B, C), for channel means (B, C)."""
        hidden = F.relu(self.squeeze(pooled))  # (B, C / reduction)
        chosen = F.hardsigmoid(self.expand(hidden)).chunk(4, dim=-1)  # (B, C) or (B, 1) each
        slope_1, shift_1, slope_2, shift_2 = (each.expand_as(pooled) for each in chosen)
        return 2 * slope_1, shift_1 - 0.5, 2 * slope_2 - 1, shift_2 - 0.5
