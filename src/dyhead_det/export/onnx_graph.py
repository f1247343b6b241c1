"""A detector as an ONNX graph: one image in, boxes, scores and labels out.

PyTorch's newer exporter cannot take a whole torchvision detector (its suppression of boxes has
sizes that only the data know), so this uses the older one, which records what one image goes
through. It knows all operators but the deformable convolution, for which ONNX has one of its own.
"""

import copy
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.onnx import symbolic_helper

from dyhead_det.dyhead.head import DyHead
from dyhead_det.dyhead.stacked import StackedDyHead
from dyhead_det.errors import ExportError
from dyhead_det.export.options import Deform
from dyhead_det.models.detectors import Detector
from dyhead_det.prediction.onnx_session import COUNT, OUTPUTS

# The first with DeformConv, and all that the rest needs.
OPSET = 19
DEFORM_CONV = "torchvision::deform_conv2d"
INPUT = "image"


class OneImage(nn.Module):
    """A detector whose input and outputs are tensors."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes (N, 4), scores (N,) and labels (N,) of an image.

        Args:
            image: (3, H, W) RGB, uint8 in 0..255 or float32 in [0, 1].
        """
        (prediction,) = self.detector([as_float(image)])
        return prediction["boxes"], prediction["scores"], prediction["labels"]


def write_graph(detector: Detector, path: Path, image: Tensor) -> None:
    """Write an ONNX file for images of any size.

    Args:
        detector: in evaluation mode, on the CPU, as `exportable` returns it.
        path: the file to write.
        image: what is recorded, (3, H, W); its type is that of the file's input.

    Raises:
        ExportError: if the detector has an operator that ONNX or the exporter does not know.
    """
    record(
        OneImage(detector),
        (image,),
        path,
        inputs={INPUT: {1: "height", 2: "width"}},
        outputs={name: {0: COUNT} for name in OUTPUTS},
    )


def record(
    module: nn.Module,
    arguments: Sequence[Tensor],
    path: Path,
    *,
    inputs: Mapping[str, Mapping[int, str]],
    outputs: Mapping[str, Mapping[int, str]],
) -> None:
    """Write what tensors go through in a module as an ONNX file.

    Args:
        module: takes and returns tensors, or a tuple of them.
        arguments: what is recorded.
        path: the file to write.
        inputs: names of the arguments, and those of the axes of any size.
        outputs: the same of the results.

    Raises:
        ExportError: if the module has an operator that ONNX or the exporter does not know.
    """
    try:
        with _deform_conv_known(), _standard_output_closed(), warnings.catch_warnings():
            # Hundreds: of every place where Python looks at a size. Whether one of them matters is
            # found out by running the file on images of several sizes.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module.eval(),
                tuple(arguments),
                path,
                dynamo=False,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_axes={**inputs, **outputs},
            )
    except (RuntimeError, TypeError, ValueError) as error:
        # The exporter's own errors are RuntimeErrors; the others come from code of a backbone that
        # takes numbers only, where a traced size is a tensor.
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(
            f"this detector cannot be written as an ONNX graph: {reason}; where that is part of "
            f"the backbone, train with another one (`model.backbone.name`)"
        ) from error


def exportable(detector: Detector, deform: Deform) -> Detector:
    """Return a copy that computes the same in what an exporter knows.

    Args:
        detector: left as it is.
        deform: by ONNX's deformable convolution, or by standard operators.
    """
    detector = copy.deepcopy(detector)
    for module in detector.modules():
        if isinstance(module, DyHead | StackedDyHead):
            # The fast implementation is made of functions of our own.
            module.deform_backend = "torchvision" if deform == "op" else "grid_sample"
    return detector


def as_float(image: Tensor) -> Tensor:
    """Bring pixels to [0, 1]."""
    return image.float() / 255 if image.dtype == torch.uint8 else image


@symbolic_helper.parse_args(*"vvvvviiiiiiiib")
def _deform_conv(
    graph: Any,  # noqa: ANN401 - torch does not name its type
    x: object,
    weight: object,
    offset: object,
    mask: object,
    bias: object,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    groups: int,
    offset_groups: int,
    use_mask: bool,
) -> object:
    """Write torchvision's operator, arguments in its order, as that of ONNX."""
    del use_mask  # ours always has one
    return graph.op(
        "DeformConv",
        x,
        weight,
        offset,
        bias,
        mask,
        kernel_shape_i=[3, 3],
        strides_i=[stride_h, stride_w],
        pads_i=[pad_h, pad_w, pad_h, pad_w],
        dilations_i=[dilation_h, dilation_w],
        group_i=groups,
        offset_group_i=offset_groups,
    )


@contextmanager
def _deform_conv_known() -> Iterator[None]:
    # Public, but not for mypy.
    torch.onnx.register_custom_op_symbolic(  # type: ignore[attr-defined]
        DEFORM_CONV, _deform_conv, OPSET
    )
    try:
        yield
    finally:
        torch.onnx.unregister_custom_op_symbolic(  # type: ignore[attr-defined]
            DEFORM_CONV, OPSET
        )


@contextmanager
def _standard_output_closed() -> Iterator[None]:
    """Keep the exporter quiet: where it fails it prints the whole graph, below Python."""
    try:
        kept = os.dup(1)
    except OSError:  # it is closed already
        yield
        return
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
