"""Box deltas of mmdetection."""

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder


class MmdetBoxCoder(BoxCoder):  # type: ignore[misc]  # untyped base
    """Deltas of mmdetection: the logarithm of a side is bounded below, too, not above only."""

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        """Turn deltas (N, 4) and anchors (N, 4) into boxes (N, 4)."""
        centers, sides = rel_codes.chunk(2, dim=1)
        sides = sides.clamp(min=-self.bbox_xform_clip * self.weights[2])
        decoded: Tensor = super().decode_single(torch.cat([centers, sides], dim=1), boxes)
        return decoded
