"""Resizing of 8-bit pixels as detectron2's and mmdetection's loaders did it, to the last bit.

Published weights saw images that were resized as integers, before the mean was taken off. Where a
box falls depends on it: torchvision resizes floats afterwards, does not smooth when it shrinks,
and rounds sizes down.
"""

import torch
import torchvision
from PIL import Image
from torch import Tensor

from dyhead_det.models.resized_size import exact


def resize_like_pil(pixels: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Resize (3, H, W) uint8 with Pillow's bilinear filter, which smooths when it shrinks.

    Rows first, then columns, with 8 bits in between: so did every Pillow before 13, which chooses
    the order by the sizes and is one unit off in every tenth pixel where it chooses the other.
    """
    if torchvision._is_tracing() or not _has_pillow(pixels.device):
        return resize_by_the_formula_of_pil(pixels, size_hw)
    picture = Image.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy())
    for width_height in ((size_hw[1], picture.height), (size_hw[1], size_hw[0])):
        picture = picture.resize(width_height, Image.Resampling.BILINEAR)
    data = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return data.view(*size_hw, 3).permute(2, 0, 1).to(pixels.device)


def _has_pillow(device: torch.device) -> bool:
    """Say where Pillow is quicker: on the host. A GPU is waited for, unless it has no float64."""
    return device.type in ("cpu", "mps")


def resize_by_the_formula_of_pil(pixels: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Compute what Pillow computes in tensor operations, for a graph or a GPU, without Pillow.

    Pillow adds integers. In float64 the sums are exact, and so the pixels are the same to the last
    bit.
    """
    x = _filter_rows(pixels.to(torch.float64), size_hw[1])  # (3, H, W')
    x = _filter_rows(x.transpose(1, 2), size_hw[0])  # (3, W', H')
    return x.transpose(1, 2).to(torch.uint8)


def _filter_rows(x: Tensor, new_size: int) -> Tensor:
    """Resize the last axis of (3, H, W) by a triangle as wide as two of the larger pixels."""
    scale = exact(x.shape[2], x.device) / exact(new_size, x.device)
    half_width = scale.clamp(min=1)
    centers = (torch.arange(new_size, dtype=torch.float64, device=x.device) + 0.5) * scale
    pixels = torch.arange(x.shape[2], dtype=torch.float64, device=x.device) + 0.5
    weights = (1 - ((pixels - centers[:, None]) / half_width).abs()).clamp(min=0)  # (W', W)
    normalized = weights / weights.sum(dim=1, keepdim=True)
    weights_of_22_bits = (normalized * 2**22 + 0.5).floor()
    total = x @ weights_of_22_bits.T
    return (total / 2**22 + 0.5).floor().clamp(0, 255)


def resize_like_cv2(pixels: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Resize (3, H, W) uint8 as OpenCV's INTER_LINEAR does: 4 neighbors, weights of 11 bits.

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
    """Return both neighbors of every new pixel along one axis, and their weights times 2048."""
    count_on = device if device.type != "mps" else torch.device("cpu")  # MPS has no float64
    scale = 1 / (exact(new_size, count_on) / exact(old_size, count_on))  # as OpenCV rounds it
    new_pixels = torch.arange(new_size, dtype=torch.float64, device=count_on)
    positions = (new_pixels + 0.5) * scale - 0.5
    positions = positions.to(torch.float32)
    first = positions.floor()
    fraction = positions - first
    left, right = ((first + step).long().clamp(0, old_size - 1).to(device) for step in (0, 1))
    weights = [(weight * 2048).round().to(torch.int32) for weight in (1 - fraction, fraction)]
    return left, right, (weights[0].to(device), weights[1].to(device))
