"""Resizing of 8-bit pixels as the original data loaders did it, to the last bit.

Published weights saw images that were resized as integers, before the mean was taken off. Where a
box falls depends on it: torchvision resizes floats afterwards, does not smooth when it shrinks,
and rounds sizes down.
"""

import torch
from PIL import Image
from torch import Tensor


def detectron2_size(height: int, width: int, *, short_edge: int, long_edge: int) -> tuple[int, int]:
    """Return (height, width) with the shorter edge `short_edge`, the longer at most `long_edge`.

    Detectron2's ResizeShortestEdge: two steps in floating point, rounded half up at the end.
    """
    scale = short_edge / min(height, width)
    if height < width:
        new_height, new_width = float(short_edge), scale * width
    else:
        new_height, new_width = scale * height, float(short_edge)
    if max(new_height, new_width) > long_edge:
        shrink = long_edge / max(new_height, new_width)
        new_height, new_width = new_height * shrink, new_width * shrink
    return int(new_height + 0.5), int(new_width + 0.5)


def mmdet_size(height: int, width: int, *, short_edge: int, long_edge: int) -> tuple[int, int]:
    """Return (height, width) as mmcv's rescale_size: one factor, rounded half up."""
    scale = min(long_edge / max(height, width), short_edge / min(height, width))
    return int(height * scale + 0.5), int(width * scale + 0.5)


def resize_like_pil(pixels: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Resize (3, H, W) uint8 with Pillow's bilinear filter, which smooths when it shrinks."""
    picture = Image.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy())
    resized = picture.resize((size_hw[1], size_hw[0]), Image.Resampling.BILINEAR)
    data = torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8)
    return data.view(*size_hw, 3).permute(2, 0, 1).to(pixels.device)


def resize_like_cv2(pixels: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Resize (3, H, W) uint8 as OpenCV's INTER_LINEAR does: 4 neighbours, weights of 11 bits.

    OpenCV adds in 32-bit integers: columns first, then rows with 4 bits and then 16 bits dropped.
    """
    x = pixels.to(torch.int32)
    left, right, x_weights = _linear_taps(x.shape[2], size_hw[1], device=pixels.device)
    x = x[:, :, left] * x_weights[0] + x[:, :, right] * x_weights[1]  # (3, H, W')
    top, bottom, y_weights = _linear_taps(pixels.shape[1], size_hw[0], device=pixels.device)
    upper = (y_weights[0][:, None] * (x[:, top] >> 4)) >> 16  # (3, H', W')
    lower = (y_weights[1][:, None] * (x[:, bottom] >> 4)) >> 16
    return ((upper + lower + 2) >> 2).to(torch.uint8)


def _linear_taps(
    old_size: int, new_size: int, *, device: torch.device
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Return both neighbours of every new pixel along one axis, and their weights times 2048."""
    scale = 1 / (new_size / old_size)  # in this order, as OpenCV rounds it
    places = (torch.arange(new_size, dtype=torch.float64) + 0.5) * scale - 0.5
    places = places.to(torch.float32)
    first = places.floor()
    fraction = places - first
    left, right = ((first + step).long().clamp(0, old_size - 1).to(device) for step in (0, 1))
    weights = [(part * 2048).round().to(torch.int32) for part in (1 - fraction, fraction)]
    return left, right, (weights[0].to(device), weights[1].to(device))
