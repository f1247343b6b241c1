"""Whatever holds an image in Python -> the tensor that a detector takes."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dyhead_det.data.images import read_image, rgb_tensor

ImageLike = str | Path | Image.Image | NDArray[np.generic] | Tensor


def as_image(image: ImageLike) -> Tensor:
    """Turn whatever holds an image into a tensor (3, H, W), uint8 or float32 in [0, 1].

    Raises:
        DatasetError: where a file cannot be read.
        ValueError: where an array has not the shape or the values of an image.
        TypeError: where it is something else.
    """
    if isinstance(image, str | Path):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        return rgb_tensor(image)
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if isinstance(image, Tensor):
        return _checked(image[None] if image.ndim == 2 else image, layout="(1|3, H, W)")
    msg = f"an image is a path, PIL image, numpy array or tensor, not {type(image).__name__}"
    raise TypeError(msg)


def _from_array(array: NDArray[np.generic]) -> Tensor:
    """Bring (H, W) or (H, W, 1|3|4) to (1|3, H, W), without transparency."""
    channels_last = array[..., None] if array.ndim == 2 else array
    if channels_last.ndim != 3 or channels_last.shape[2] not in (1, 3, 4):
        msg = f"a numpy image has shape (H, W) or (H, W, 1|3|4), not {array.shape}"
        raise ValueError(msg)
    # A copy: torch takes neither negative strides nor memory that must not be written.
    channels_first = np.array(channels_last[..., :3].transpose(2, 0, 1), order="C")
    return _checked(torch.from_numpy(channels_first), layout="(H, W, 1|3|4)")


def _checked(image: Tensor, *, layout: str) -> Tensor:
    """Refuse what is no image; give a grey one three channels."""
    if image.ndim != 3 or image.shape[0] not in (1, 3) or image.numel() == 0:
        msg = f"an image has shape {layout}, not {tuple(image.shape)}"
        raise ValueError(msg)
    if image.dtype != torch.uint8:
        if not image.is_floating_point():
            msg = f"an image is uint8 in 0..255 or float in [0, 1], not {image.dtype}"
            raise ValueError(msg)
        image = image.float()
        if not bool(((image >= 0) & (image <= 1)).all()):
            msg = "a float image has values in [0, 1]; divide by 255 or pass uint8"
            raise ValueError(msg)
    return image if len(image) == 3 else image.repeat(3, 1, 1)
