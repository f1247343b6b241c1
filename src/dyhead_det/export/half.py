"""Half precision: the convolutions of a detector in float16, its coordinates in float32.

A float16 resolves half a pixel at 1000: anchors, boxes, sampling locations and the suppression of
boxes stay in float32, as do scores and resizing. What is done in float16 lies between the resized
image and the raw results of the heads.
"""

from typing import Any

import torch
from torch import Tensor, nn

from dyhead_det.models.detectors import Detector

# Torchvision's name for a part -> maps (or features of regions) in, raw results out.
HALF_PARTS = ("backbone", "head", "rpn.head", "roi_heads.box_head", "roi_heads.box_predictor")


def to_half(detector: Detector) -> None:
    """Let the parts of a detector compute in float16, changed in place; they take float32."""
    parts = dict(detector.network.named_modules())
    for name in HALF_PARTS:
        if name in parts:
            parts[name].half()
            parts[name].register_forward_pre_hook(_halve_arguments)
            parts[name].register_forward_hook(_to_float)


def _halve_arguments(module: nn.Module, arguments: tuple[object, ...]) -> object:
    del module
    return _cast(arguments, torch.float16)


def _to_float(module: nn.Module, arguments: object, result: object) -> object:
    del module, arguments
    return _cast(result, torch.float32)


def _cast(value: Any, dtype: torch.dtype) -> Any:  # noqa: ANN401 - tensors in any containers
    """Cast the floating tensors in tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, dict):
        return type(value)((key, _cast(each, dtype)) for key, each in value.items())
    if isinstance(value, tuple | list):
        return type(value)(_cast(each, dtype) for each in value)
    return value
