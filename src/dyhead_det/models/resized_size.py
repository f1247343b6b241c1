"""How large an image becomes: the rules of torchvision, detectron2 and mmdetection.

No side becomes less than one pixel, however long and thin an image is. They count in float64, as
Python does: in float32 one image in ten would be a pixel larger or smaller. Written with tensors
they also hold in a graph, where sizes are no numbers.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torchvision
from torch import Tensor


def torchvision_size(
    height: int, width: int, *, short_edge: int, long_edge: int
) -> tuple[int, int]:
    """Return (height, width) as GeneralizedRCNNTransform: one factor, rounded down."""
    old_hw, short, long = _exact_hw(height, width), exact(short_edge), exact(long_edge)
    return _as_size(old_hw * torch.minimum(short / old_hw.min(), long / old_hw.max()))


def detectron2_size(height: int, width: int, *, short_edge: int, long_edge: int) -> tuple[int, int]:
    """Return (height, width) with the shorter edge `short_edge`, the longer at most `long_edge`.

    Detectron2's ResizeShortestEdge: two steps in floating point, rounded half up at the end.
    """
    old_hw, short, long = _exact_hw(height, width), exact(short_edge), exact(long_edge)
    new_hw = torch.where(old_hw == old_hw.min(), short, short / old_hw.min() * old_hw)
    shrink = (long / new_hw.max()).clamp(max=1)
    return _as_size(new_hw * shrink + 0.5)


def mmdet_size(height: int, width: int, *, short_edge: int, long_edge: int) -> tuple[int, int]:
    """Return (height, width) as mmcv's rescale_size: one factor, rounded half up."""
    old_hw, short, long = _exact_hw(height, width), exact(short_edge), exact(long_edge)
    scale = torch.minimum(long / old_hw.max(), short / old_hw.min())
    return _as_size(old_hw * scale + 0.5)


def _exact_hw(height: int, width: int) -> Tensor:
    return torch.cat([exact(height), exact(width)])


def exact(size: int, device: torch.device | None = None) -> Tensor:
    """Return a size as (1,) float64, on the host unless another device is given.

    While a graph is traced a size is a tensor. The exporter takes a product with a constant for
    float64; what is only cast, or has no dimension, it divides in float32.
    """
    return torch.ones(1, dtype=torch.float64, device=device) * size


def _as_size(size_hw: Tensor) -> tuple[int, int]:
    """Round down to two numbers, at least 1; in a traced graph they are tensors, as all sizes."""
    whole = size_hw.to(torch.int64).clamp(min=1)
    sizes: Iterable[Any] = whole.unbind() if torchvision._is_tracing() else whole.tolist()
    height, width = sizes
    return height, width
