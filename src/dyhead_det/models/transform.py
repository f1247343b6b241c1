"""From an image as it was given to a padded batch, and boxes back: resize, normalize, pad."""

from collections.abc import Sequence
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes

from dyhead_det.models.resized_size import torchvision_size


class SizeRule(Protocol):
    """How large an image becomes, as in `resized_size.py`."""

    def __call__(
        self, height: int, width: int, *, short_edge: int, long_edge: int
    ) -> tuple[int, int]:
        """Return (height, width), at least one pixel each."""


class DetectorTransform(GeneralizedRCNNTransform):  # type: ignore[misc]  # untyped base
    """Torchvision's transform, to the bit, but that no side of an image is rounded down to zero.

    That happens to torchvision where an image is longer than `long_edge` times its width. Sizes are
    counted so that they come out the same in a graph for export, too.
    """

    def __init__(
        self,
        *,
        short_edges: Sequence[int],
        long_edge: int,
        mean: Sequence[float],
        std: Sequence[float],
        size_divisible: int,
        size_rule: SizeRule = torchvision_size,
    ) -> None:
        """Note sizes and colors.

        Args:
            short_edges: Training draws one for every image; evaluation takes the last.
            long_edge: The most pixels of the longer edge.
            mean: Of each channel, in [0, 1].
            std: Of each channel.
            size_divisible: What the sides of a batch are padded to a multiple of.
            size_rule: How large an image becomes.
        """
        super().__init__(
            tuple(short_edges), long_edge, list(mean), list(std), size_divisible=size_divisible
        )
        self.size_rule = size_rule

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Resize an image (3, H, W) to (3, H', W'), and the boxes of its target with it."""
        height, width = image.shape[-2:]
        short_edge = self.torch_choice(self.min_size) if self.training else self.min_size[-1]
        size_hw = self.size_rule(height, width, short_edge=short_edge, long_edge=self.max_size)
        if target is not None:
            boxes = resize_boxes(target["boxes"], (height, width), size_hw)
            target = {**target, "boxes": boxes}
        return self.resample(image, size_hw), target

    def resample(self, image: Tensor, size_hw: tuple[int, int]) -> Tensor:
        """Interpolate an image (3, H, W) to a size."""
        return F.interpolate(image[None], size=size_hw, mode="bilinear", align_corners=False)[0]
