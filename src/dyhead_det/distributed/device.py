"""Device selection (CPU, CUDA, MPS), and moving images there and predictions back."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dyhead_det.contracts import Prediction
from dyhead_det.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """Return the device that a person asked for.

    Args:
        name: `auto` (CUDA where there is one, else the CPU), `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        ConfigError: where the name is unknown or this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(
            f"device: {name!r} is unknown; allowed: auto, cpu, cuda, cuda:<number>, mps"
        ) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device: {name} is not there; this PyTorch sees {torch.cuda.device_count()} CUDA "
            "devices; use auto or cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device: mps is not there; use auto or cpu")
    if device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"device: {name} is not supported; allowed: auto, cpu, cuda, mps")
    return device


def images_to_device(images: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Move images and turn them into what a detector takes.

    They travel as uint8, a quarter of the bytes, and without waiting where they lie in pinned
    memory.

    Args:
        images: (3, H, W) each, uint8 in 0..255 or float32 in [0, 1].
        device: where to.

    Returns:
        float32 images in [0, 1].
    """
    moved = (image.to(device, non_blocking=True) for image in images)
    return [image.float() / 255 if image.dtype == torch.uint8 else image for image in moved]


def predictions_to_host(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Move the predictions of a batch to the CPU, all in one transfer: each is a wait."""
    if not predictions or predictions[0]["boxes"].device.type == "cpu":
        return list(predictions)
    rows = torch.cat([_as_rows(prediction) for prediction in predictions]).cpu()
    counts = [len(prediction["boxes"]) for prediction in predictions]
    return [_as_prediction(rows_of_image) for rows_of_image in torch.split(rows, counts)]


def _as_rows(prediction: Prediction) -> Tensor:
    """Return (N, 6): box, score and label, which float32 holds up to 2^24."""
    boxes = prediction["boxes"]
    columns = (prediction["scores"], prediction["labels"])
    return torch.cat([boxes, *(column[:, None].to(boxes.dtype) for column in columns)], dim=1)


def _as_prediction(rows: Tensor) -> Prediction:
    return Prediction(boxes=rows[:, :4], scores=rows[:, 4], labels=rows[:, 5].long())
