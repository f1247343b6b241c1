"""What a DyHead looked at, as arrays, and how they are kept in a file."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The order of what a level sees, wherever an array has three of them.
SOURCES = ("itself", "finer", "coarser")
COEFFICIENTS = ("slope 1", "shift 1", "slope 2", "shift 2")
# With these the dynamic ReLU is a plain one.
PLAIN_RELU = (1.0, 0.0, 0.0, 0.0)

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """The inner numbers of a DyHead of N blocks and C channels on L levels, in one image.

    Maps by level hold one number a position, the root of the mean square over channels, without
    the padding of the batch. NaN stands for what is not there, such as the finer neighbor of the
    finest level.

    Attributes:
        image: (H, W, 3) uint8.
        boxes: Of all detections, xyxy in pixels of the image, (M, 4), best first.
        captions: Class and score of each detection.
        chosen: Which detection is looked at; None for a pixel.
        point: (x, y) in pixels of the image that is looked at.
        level: Position in `levels` of the level that is looked at.
        location: Row and column of `point` on the grid of that level's maps.
        levels: What the levels are called, fine to coarse.
        grids: On which level's grid the blocks work, for every level: its own, or the median one
            in `scheme: stacked`.
        strides: Pixels of the resized image per position of every level.
        scale_xy: How much larger than the image the resized one is.
        before: What DyHead gets, by level, (h, w).
        blocks: What every block makes of it, by level, (N, h, w).
        after: What the heads of the detector get, by level, (h, w).
        change: Root of the mean square of what DyHead changes in a level's maps, as a share of that
            of the maps before it, by level.
        offsets: (dy, dx) of the nine taps with which a level reads itself, in positions, by level,
            (N, 18, h, w); empty without deformable convolutions.
        masks: Their weights in (0, 1), by level, (N, 9, h, w); empty likewise.
        points_xy: Where the nine taps read for `location`, (x, y) in pixels of the image, of
            itself, the finer and the coarser level, (N, 3, 9, 2).
        points_mask: How much each of them counts, (N, 3, 9).
        gates: By what scale attention multiplies itself, the finer and the coarser level,
            (N, L, 3).
        coefficients: slope 1, shift 1, slope 2 and shift 2 of the dynamic ReLU,
            (N, L, 4, C); None without task attention.
        difference: The largest difference between the pyramid that these numbers lead to and the
            one that the detector computed itself, as a share of that one's largest value.
    """

    image: NDArray[np.uint8]
    boxes: Floats
    captions: tuple[str, ...]
    chosen: int | None
    point: tuple[float, float]
    level: int
    location: tuple[int, int]
    levels: tuple[str, ...]
    grids: tuple[int, ...]
    strides: tuple[int, ...]
    scale_xy: tuple[float, float]
    before: dict[str, Floats]
    blocks: dict[str, Floats]
    after: dict[str, Floats]
    change: dict[str, float]
    offsets: dict[str, Floats]
    masks: dict[str, Floats]
    points_xy: Floats
    points_mask: Floats
    gates: Floats
    coefficients: Floats | None
    difference: float

    @property
    def num_blocks(self) -> int:
        """N."""
        return len(self.points_mask)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what an npz file holds: the attributes, those by level as `before_p3`."""
        arrays: dict[str, NDArray[Any]] = {}
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, dict):
                arrays |= {f"{name}_{level}": np.asarray(each) for level, each in value.items()}
            elif value is not None:
                arrays[name] = np.asarray(value)
        return arrays
