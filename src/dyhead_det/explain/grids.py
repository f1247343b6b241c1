"""How the positions of feature maps lie on an image, and where deformable convolutions read."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dyhead_det.dyhead.trace import Sampling

# (dy, dx) of the nine taps of a plain 3 x 3 convolution, row by row.
PLAIN_TAPS = torch.tensor([(dy, dx) for dy in (-1.0, 0.0, 1.0) for dx in (-1.0, 0.0, 1.0)])
# On its level a box should be so many positions long, as the anchors of ATSS are.
POSITIONS_OF_BOX = 8


@dataclass(frozen=True, slots=True)
class Grids:
    """The levels of a pyramid over one image.

    A position of a level stands for a square of `stride` pixels of the resized image, and lies in
    the middle of it.

    strides: Of all levels, fine to coarse.
    resized_hw: Size of the resized image in pixels, without padding.
    image_hw: Size of the image in pixels.
    """

    strides: tuple[int, ...]
    resized_hw: tuple[int, int]
    image_hw: tuple[int, int]

    @property
    def scale_xy(self) -> tuple[float, float]:
        """How much larger than the image the resized one is."""
        vertical, horizontal = (
            resized / size for resized, size in zip(self.resized_hw, self.image_hw, strict=True)
        )
        return horizontal, vertical

    def inside(self, x: Tensor, level: int) -> NDArray[np.float32]:
        """Return maps (1, ..., H, W) of one image without the padding of the batch."""
        height, width = self._size_hw(level)
        return np.asarray(x[0, ..., :height, :width].float().cpu().numpy())

    def location(self, point_xy: tuple[float, float], level: int) -> tuple[int, int]:
        """Return row and column of the position in whose square a point of the image lies."""
        x, y = (value * scale for value, scale in zip(point_xy, self.scale_xy, strict=True))
        height, width = self._size_hw(level)
        stride = self.strides[level]
        return min(int(y // stride), height - 1), min(int(x // stride), width - 1)

    def pixels(self, positions: NDArray[np.float32], level: int) -> NDArray[np.float32]:
        """Turn (y, x) in positions of a level into (x, y) in pixels of the image, (..., 2)."""
        middles = (positions[..., ::-1] + 0.5) * self.strides[level]
        return np.asarray(middles / np.array(self.scale_xy), dtype=np.float32)

    def level_of_box(self, box: tuple[float, float, float, float]) -> int:
        """Return the level on which a box is nearest to `POSITIONS_OF_BOX` positions long."""
        left, top, right, bottom = box
        area = (right - left) * (bottom - top) * math.prod(self.scale_xy)
        lengths = math.sqrt(max(area, 1.0)) / np.array(self.strides)
        return int(np.abs(np.log2(lengths / POSITIONS_OF_BOX)).argmin())

    def _size_hw(self, level: int) -> tuple[int, int]:
        height, width = (math.ceil(size / self.strides[level]) for size in self.resized_hw)
        return height, width


def sampled_positions(
    sampling: Sampling, location: tuple[int, int], size_hw: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return where the nine taps read for one location of a map, and how much they count.

    What is read of the coarser level is enlarged afterwards: there it is the taps of that location
    of the coarser grid which falls nearest to the one asked for.

    Args:
        sampling: Of one image.
        location: Row and column in the new map.
        size_hw: Size of that map with its padding.

    Returns:
        (y, x) of the taps in positions of the grid that is read, (9, 2), and their masks, (9,).
    """
    sizes = sampling.mask.shape[-2:]
    # Enlarging puts corner pixels on corner pixels.
    row, column = (
        round(place * (small - 1) / max(1, size - 1))
        for place, small, size in zip(location, sizes, size_hw, strict=True)
    )
    center = torch.tensor([row, column], dtype=torch.float32) * sampling.stride
    offset = sampling.offset[0, :, row, column].float().cpu().view(9, 2)
    mask = sampling.mask[0, :, row, column].float().cpu()
    return (center + PLAIN_TAPS + offset).numpy(), mask.numpy()
