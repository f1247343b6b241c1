"""Group norm for any number of channels and any size of map."""

import math

import torch
from torch import Tensor, nn

NUM_GROUPS = 32


class AnySizeGroupNorm(nn.GroupNorm):
    """PyTorch's group norm, which refuses a map of one pixel with one channel a group.

    There the mean is the value itself, so that the result is the bias. P7 of an image of 128 pixels
    is such a map.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (B, C, H, W)."""
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def build_group_norm(channels: int) -> AnySizeGroupNorm:
    """Return a norm of 32 groups, of fewer where these do not divide the channels evenly."""
    return AnySizeGroupNorm(math.gcd(NUM_GROUPS, channels), channels)
