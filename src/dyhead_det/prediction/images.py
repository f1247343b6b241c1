"""Whatever holds an image in Python -> the tensor that a detector takes, the same from all of them.

A file, the Pillow image of it and an array or tensor with its values give the same pixels:
orientation, transparency, gray and 16 bits are treated as `data/images.py` says.
"""

import math
import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dyhead_det.data.images import LARGE_PIXELS, read_image, rgb_tensor, shown_tensor

ImageLike = str | os.PathLike[str] | Image.Image | NDArray[np.generic] | Tensor


def as_image(image: ImageLike) -> Tensor:
    """Turn whatever holds an image into a tensor (3, H, W), uint8 or float32 in [0, 1].

    Args:
        image: A path, a Pillow image, an array (H, W) or (H, W, 1|2|3|4), or a tensor (H, W) or
            (1|2|3|4, H, W), of bool, uint8, uint16 or floats in [0, 1]. The second of two and the
            fourth of four channels is opacity; color is RGB.

    Raises:
        DatasetError: If a file cannot be read.
        ValueError: If an array has not the shape or the values of an image.
        TypeError: If it is something else.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        if 0 in image.size:
            msg = f"an image has at least one pixel, not {image.width} x {image.height}"
            raise ValueError(msg)
        return shown_tensor(image)
    if isinstance(image, np.ndarray):
        channels_last = image[..., None] if image.ndim == 2 else image
        planes = channels_last.transpose(2, 0, 1) if channels_last.ndim == 3 else channels_last
        return _from_planes(planes, shape=image.shape, layout="(H, W) or (H, W, 1|2|3|4)")
    if isinstance(image, Tensor):
        values = image.detach().cpu()
        values = values.float() if values.is_floating_point() else values  # numpy has no bfloat16
        array: NDArray[np.generic] = (values[None] if values.ndim == 2 else values).numpy()
        shape = tuple(image.shape)
        return _from_planes(array, shape=shape, layout="(H, W) or (1|2|3|4, H, W)")
    msg = f"an image is a path, PIL image, numpy array or tensor, not {type(image).__name__}"
    raise TypeError(msg)


def as_uint8(image: Tensor) -> Tensor:
    """Turn what `as_image` returns into whole numbers, to draw on."""
    return image if image.dtype == torch.uint8 else (image * 255).round().to(torch.uint8)


def reduce_large(image: Tensor, resized_to: tuple[int, int]) -> tuple[Tensor, int]:
    """Average a large image over squares, which saves gigabytes as floating point.

    Args:
        image: (3, H, W), uint8 or float32.
        resized_to: Bounds of the shorter and the longer edge that the detector will resize it to;
            it does not become smaller than that.

    Returns:
        The image and the edge of the squares in pixels: 1 for up to `LARGE_PIXELS` pixels.
    """
    height, width = image.shape[1:]
    scale = max(min(height, width) / resized_to[0], max(height, width) / resized_to[1])
    factor = min(int(scale), math.ceil(math.sqrt(height * width / LARGE_PIXELS)))
    if factor <= 1:
        return image, 1
    if image.dtype != torch.uint8:
        return F.avg_pool2d(image, factor, ceil_mode=True, count_include_pad=False), factor
    planes = [np.asarray(Image.fromarray(plane).reduce(factor)) for plane in image.numpy()]
    return torch.from_numpy(np.stack(planes)), factor


def _from_planes(planes: NDArray[np.generic], *, shape: tuple[int, ...], layout: str) -> Tensor:
    """Bring (1|2|3|4, H, W) of any type to three channels without transparency."""
    if planes.ndim != 3 or planes.shape[0] not in (1, 2, 3, 4) or planes.size == 0:
        msg = f"an image has shape {layout}, not {shape}"
        raise ValueError(msg)
    planes = planes.astype(planes.dtype.newbyteorder("="), copy=False)
    if planes.dtype.kind == "f":
        return _from_floats(planes)
    if planes.dtype == np.uint16 and len(planes) == 1:
        return rgb_tensor(Image.fromarray(np.ascontiguousarray(planes[0])))
    pixels = _to_uint8(planes)
    if len(pixels) in (2, 4):
        return rgb_tensor(Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))))
    # A copy: torch takes neither negative strides nor memory that must not be written.
    return torch.from_numpy(np.array(pixels, order="C")).expand(3, -1, -1).contiguous()


def _to_uint8(planes: NDArray[np.generic]) -> NDArray[np.uint8]:
    if planes.dtype == np.bool_:
        return planes.astype(np.uint8) * np.uint8(255)
    if planes.dtype == np.uint16:  # the higher byte, as Pillow reads color of 16 bits
        return (planes.astype(np.uint16) >> 8).astype(np.uint8)
    if planes.dtype == np.uint8:
        return planes.astype(np.uint8, copy=False)
    msg = f"an image is bool, uint8, uint16 or float in [0, 1], not {planes.dtype}"
    raise ValueError(msg)


def _from_floats(planes: NDArray[np.generic]) -> Tensor:
    pixels = torch.from_numpy(np.array(planes, dtype=np.float32, order="C"))
    if not bool(((pixels >= 0) & (pixels <= 1)).all()):
        msg = "a float image has values in [0, 1]; divide by 255 or pass uint8"
        raise ValueError(msg)
    if len(pixels) in (2, 4):
        opacity = pixels[-1:]
        pixels = pixels[:-1] * opacity + (1 - opacity)  # on white
    return pixels.expand(3, -1, -1).contiguous()
