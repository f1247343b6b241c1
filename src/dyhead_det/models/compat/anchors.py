"""Anchors of detectron2."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dyhead_det.models.full_precision import FullPrecisionAnchorGenerator


class Detectron2AnchorGenerator(FullPrecisionAnchorGenerator):
    """Anchors of detectron2: sides are not rounded, and all ratios of a size stand together.

    Torchvision rounds (22.63 becomes 23) and puts all sizes of a ratio together.
    """

    def generate_anchors(
        self,
        scales: Sequence[float],
        aspect_ratios: Sequence[float],
        dtype: torch.dtype = torch.float32,
        device: torch.device = torch.device("cpu"),  # noqa: B008 - torchvision's signature
    ) -> Tensor:
        """Return the anchors of one level around (0, 0): (A, 4), size-major."""
        widths_heights = [
            (width := math.sqrt(size**2 / ratio), ratio * width)
            for size in scales
            for ratio in aspect_ratios
        ]
        sides = torch.tensor(widths_heights, dtype=dtype, device=device)
        return torch.cat([-sides, sides], dim=1) / 2
