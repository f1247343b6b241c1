"""Backbone, FPN and DyHead as a file of torch.export (`.pt2`), for batches of any size.

It holds the part of a detector that every task on feature maps can use, without the heads: those
of torchvision have sizes that only the data know, which torch.export does not take.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torchvision.models.swin_transformer import ShiftedWindowAttention

from dyhead_det.errors import ExportError

METADATA = "metadata.json"
"""Name of the text in the file that says what it is."""

# Of the largest value of a map: more than rounding tells two programs apart.
TOLERANCE = 1e-3
LEAST_SIDE = 2
"""Height and width of images at least, in units of `size_divisible`: for torch.export a map of a
single pixel is another program."""

# What is recorded, and what file and module are compared on, in these units.
_RECORDED = (2, 3, 4)  # images, rows, columns
_COMPARED = ((1, 2, 3), (3, 4, 2))


def write_program(
    backbone: nn.Module, path: Path, *, size_divisible: int, metadata: Mapping[str, object]
) -> None:
    """Record a module and write it.

    Args:
        backbone: images (B, 3, H, W) to a dict of maps, in evaluation mode, made of what
            torch.export knows; see `recordable`.
        path: the file.
        size_divisible: what H and W are multiples of.
        metadata: what a user of the file needs to know, written as JSON under `METADATA`.

    Raises:
        ExportError: if the module has something that torch.export does not take.
    """
    program = _record(backbone, size_divisible)
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={METADATA: json.dumps(metadata, indent=1)})


def _record(backbone: nn.Module, size_divisible: int) -> ExportedProgram:
    sides = [size_divisible * Dim(name, min=LEAST_SIDE) for name in ("rows", "columns")]
    sizes = {0: Dim("batch", min=1), 1: Dim.STATIC, 2: sides[0], 3: sides[1]}
    try:
        with torch.no_grad():
            return torch.export.export(
                backbone, (_images(_RECORDED, size_divisible),), dynamic_shapes=(sizes,)
            )
    except (RuntimeError, TypeError, ValueError) as error:
        # The exporter's own errors are RuntimeErrors; the others come from code of a backbone that
        # takes numbers only, where a size is a symbol.
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(
            f"torch.export cannot record this backbone for images of any size: {reason}; train "
            "with another one (`model.backbone.name`), such as a ResNet, or export ONNX"
        ) from error


def measure_difference(path: Path, backbone: nn.Module, *, size_divisible: int) -> float:
    """Load a file and return how far its maps are from those of a module, by their largest value.

    Args:
        path: what `write_program` wrote.
        backbone: computes the same, any way.
        size_divisible: as in `write_program`.

    Raises:
        ExportError: if the file does not take other sizes than the recorded one.
    """
    with path.open("rb") as file:
        loaded = torch.export.load(file).module()
    worst = 0.0
    for size in _COMPARED:
        images = _images(size, size_divisible)
        with torch.no_grad():
            expected = backbone(images)
            try:
                maps = loaded(images)
            except (AssertionError, RuntimeError) as error:
                reason = str(error).strip().partition("\n")[0]
                raise ExportError(
                    f"what torch.export recorded does not take images {tuple(images.shape)}: "
                    f"{reason}"
                ) from error
        worst = max(worst, _largest_difference(maps, expected))
    return worst


def _largest_difference(maps: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    differences = [
        float((maps[name] - right).abs().max() / right.abs().max().clamp(min=1e-12))
        for name, right in expected.items()
    ]
    return max(differences)


def _images(size: Sequence[int], size_divisible: int) -> Tensor:
    """Return noise as bright as normalized images, (B, 3, H, W)."""
    batch, rows, columns = size
    generator = torch.Generator().manual_seed(0)
    shape = (batch, 3, rows * size_divisible, columns * size_divisible)
    return torch.randn(shape, generator=generator)


def recordable(backbone: nn.Module) -> nn.Module:
    """Give convolutions of timm that pad by the size of an image their padding once and for all.

    TensorFlow's "same" padding (`tf_*` models) follows from the size of the map. Where that is a
    multiple of the stride, it is always the same; as a formula of symbols it grows from layer to
    layer until recording takes hours.

    Args:
        backbone: changed in place.

    Raises:
        ExportError: if it is a Swin transformer, whose windows are padded by such a formula, too,
            and shifted or not by the size of the map.
    """
    for name, module in [*backbone.named_modules()]:
        if isinstance(module, ShiftedWindowAttention):
            raise ExportError(
                "torch.export does not record a Swin backbone, whose windows are padded and "
                "shifted by the size of a map; export ONNX, or train with another "
                "`model.backbone.name`"
            )
        if type(module).__name__ == "Conv2dSame" and isinstance(module, nn.Conv2d):
            backbone.set_submodule(name, _SamePadded(module))
    return backbone


class _SamePadded(nn.Module):
    """TensorFlow's "same" padding and a convolution, for maps of multiples of its stride."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.padding: list[int] = []  # left, right, top, bottom
        for axis in (1, 0):
            reach = (conv.kernel_size[axis] - 1) * conv.dilation[axis] + 1
            total = max(0, reach - conv.stride[axis])
            self.padding += [total // 2, total - total // 2]

    def forward(self, x: Tensor) -> Tensor:
        """Convolve maps (B, C, H, W)."""
        conv, padded = self.conv, F.pad(x, self.padding)
        return F.conv2d(
            padded, conv.weight, conv.bias, conv.stride, (0, 0), conv.dilation, conv.groups
        )
