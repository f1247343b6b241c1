"""Modulated deformable convolution by gathered features in Triton kernels, for autograd.

`triton_conv` has the arguments and the meaning of `gather_conv` (`ops/gather/deform_conv.py`); what
the kernels compute is written in `kernels.py`. Nothing here waits for the GPU.

The gradient of the features is added atomically, in any order: its last digits change from run to
run. All other results have the same bits again.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, starmap

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from dyhead_det.ops.gather.context import Context
from dyhead_det.ops.gather.sampling_grid import SamplingGrid
from dyhead_det.ops.triton import kernels

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Tiles:
    """How much a program does at a time: locations, input and output channels."""

    locations: int
    channels: int
    out_channels: int
    num_warps: int = 8
    num_stages: int = 2


# By kernel and products: of the tiles that spill no registers on sm_80 and sm_90 and take less than
# the 99 KiB of shared memory of smaller GPUs (`scripts/triton_report.py`), the fastest on an H200
# (`scripts/tune_triton.py`; those of tf32x3 were not tried).
TILES = {
    ("convolve", "half"): Tiles(64, 32, 256, num_warps=4, num_stages=3),
    ("convolve", "tf32"): Tiles(32, 32, 256, num_warps=4),
    ("convolve", "tf32x3"): Tiles(64, 32, 128),
    ("differentiate_samples", "half"): Tiles(64, 32, 64),
    ("differentiate_samples", "tf32"): Tiles(64, 32, 64),
    ("differentiate_samples", "tf32x3"): Tiles(64, 16, 64),
    ("differentiate_kernel", "half"): Tiles(32, 64, 256),
    ("differentiate_kernel", "tf32"): Tiles(32, 32, 256, num_warps=4),
    ("differentiate_kernel", "tf32x3"): Tiles(32, 32, 256),
}
# The gradient of a kernel is summed by programs for shares of the locations: more of them fill a
# GPU better, and each takes memory for a kernel in float32.
MAX_SHARES, MIN_LOCATIONS_PER_SHARE = 16, 128


def triton_conv(
    features: Tensor,
    offsets_and_masks: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    grid: SamplingGrid,
    num_locations: list[int],
) -> Tensor:
    """Convolve at learned sampling locations; arguments and result as of `gather_conv`.

    Raises:
        ValueError: features of another type than float32, bfloat16 and float16.
    """
    if features.dtype not in DTYPES:
        raise ValueError(
            f"deform backend triton computes float32, bfloat16 and float16, not {features.dtype}"
        )
    parameters = [each.to(features.dtype) for each in (*weights, *biases)]
    out: Tensor = _TritonConv.apply(features, offsets_and_masks, grid, num_locations, *parameters)
    return out


def launch_options(
    kernel: str, dtype: torch.dtype, channels: int, out_channels: int
) -> dict[str, int | str]:
    """Return what a kernel is compiled with for a convolution of C channels to C_out.

    Without TF32 a product of float32 is three of TF32, which lose one or two of its bits and are
    several times faster than exact ones.
    """
    exact = "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"
    products = exact if dtype == torch.float32 else "half"
    tiles = TILES[kernel, products]
    return {
        "PRECISION": "tf32" if products == "half" else products,  # no matter for half precision
        "BLOCK_P": tiles.locations,
        # Products on tensor cores have sides of at least 16.
        "BLOCK_C": min(tiles.channels, max(16, triton.next_power_of_2(channels))),
        "BLOCK_O": min(tiles.out_channels, max(16, triton.next_power_of_2(out_channels))),
        "num_warps": tiles.num_warps,
        "num_stages": tiles.num_stages,
    }


class _TritonConv(torch.autograd.Function):
    """Saves its arguments only."""

    @staticmethod
    def forward(
        ctx: Context,
        features: Tensor,
        offsets_and_masks: Tensor,
        grid: SamplingGrid,
        num_locations: list[int],
        *parameters: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(features, offsets_and_masks, *parameters)
        ctx.grid, ctx.num_locations = grid, num_locations
        weights, biases = parameters[: len(num_locations)], parameters[len(num_locations) :]
        out = features.new_empty(len(grid), len(biases[0]))
        inputs = launch_inputs(features, offsets_and_masks, grid)
        with torch.cuda.device(features.get_device()):
            for here, weight, bias in zip(_ranges(num_locations), weights, biases, strict=True):
                write_convolved(inputs, weight, bias, out, here)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_where_bits_have_to_be_equal()
        features, offsets_and_masks, *parameters = ctx.saved_tensors
        weights = parameters[: len(ctx.num_locations)]
        inputs = launch_inputs(features, offsets_and_masks, ctx.grid)
        grad = grad.contiguous()
        # Sums of many small numbers: half precision would lose them.
        grad_features = torch.zeros_like(inputs[0], dtype=torch.float32)
        grad_offsets_and_masks = torch.empty_like(inputs[1])
        grad_weights, grad_biases = [], []
        with torch.cuda.device(features.get_device()):
            for here, weight in zip(_ranges(ctx.num_locations), weights, strict=True):
                add_grad_of_samples(
                    inputs, weight, grad, grad_features, grad_offsets_and_masks, here
                )
                grad_weights.append(grad_of_weight(inputs, grad, weight, here))
                grad_biases.append(grad[here.start : here.stop].sum(dim=0))
        grad_features = grad_features.to(features.dtype)
        return grad_features, grad_offsets_and_masks, None, None, *grad_weights, *grad_biases


def write_convolved(
    inputs: Sequence[Tensor], weight: Tensor, bias: Tensor, out: Tensor, here: range
) -> None:
    """Convolve the locations of a range with one weight; `launch_inputs` are what is convolved."""
    out_channels, channels = weight.shape[:2]
    options = launch_options("convolve", weight.dtype, channels, out_channels)
    blocks = (
        triton.cdiv(len(here), options["BLOCK_P"]),
        triton.cdiv(out_channels, options["BLOCK_O"]),
    )
    kernels.convolve[blocks](
        *inputs, _kernel(weight), bias.contiguous(), out,
        here.start, here.stop, len(out), channels, out_channels, **options,
    )  # fmt: skip


def add_grad_of_samples(
    inputs: Sequence[Tensor],
    weight: Tensor,
    grad: Tensor,
    grad_features: Tensor,
    grad_offsets_and_masks: Tensor,
    here: range,
) -> None:
    """Add the gradient of the features, and write that of the offsets and masks of a range."""
    out_channels, channels = weight.shape[:2]
    options = launch_options("differentiate_samples", weight.dtype, channels, out_channels)
    kernels.differentiate_samples[triton.cdiv(len(here), options["BLOCK_P"]), 9](
        *inputs, _kernel(weight), grad, grad_features, grad_offsets_and_masks,
        here.start, here.stop, len(grad), channels, out_channels, **options,
    )  # fmt: skip


def grad_of_weight(inputs: Sequence[Tensor], grad: Tensor, weight: Tensor, here: range) -> Tensor:
    """Return the gradient of a convolution's weight, in its type, by its range of locations."""
    out_channels, channels = weight.shape[:2]
    options = launch_options("differentiate_kernel", weight.dtype, channels, out_channels)
    num_shares = max(1, min(MAX_SHARES, len(here) // MIN_LOCATIONS_PER_SHARE))
    shares = grad.new_empty(num_shares, 9, channels, out_channels, dtype=torch.float32)
    blocks = (
        9 * triton.cdiv(channels, options["BLOCK_C"]),
        triton.cdiv(out_channels, options["BLOCK_O"]),
        num_shares,
    )
    kernels.differentiate_kernel[blocks](
        *inputs, grad, shares, here.start, here.stop, len(grad), channels, out_channels,
        triton.cdiv(len(here), num_shares), **options,
    )  # fmt: skip
    summed = shares.sum(dim=0).view(3, 3, channels, out_channels)
    return summed.permute(3, 2, 0, 1).to(weight.dtype)


def launch_inputs(features: Tensor, offsets_and_masks: Tensor, grid: SamplingGrid) -> list[Tensor]:
    """Return the tensors that all kernels begin with, in memory as they read them."""
    positions = (grid.tap_yx, grid.map_hw)
    return [
        features.contiguous(),
        offsets_and_masks.float().contiguous(),
        *(each.float().contiguous() for each in positions),
        grid.map_start.contiguous(),
    ]


def _kernel(weight: Tensor) -> Tensor:
    """Bring a weight (C_out, C, 3, 3) to the order of the kernels, (9, C, C_out)."""
    return weight.permute(2, 3, 1, 0).flatten(0, 1).contiguous()


def _ranges(num_locations: Sequence[int]) -> list[range]:
    """Return which of all locations use each kernel."""
    return list(starmap(range, pairwise(accumulate(num_locations, initial=0))))


def _refuse_where_bits_have_to_be_equal() -> None:
    """Do what PyTorch's own operators do whose gradients are added in any order.

    Raises:
        RuntimeError: where `torch.use_deterministic_algorithms` does more than warn.
    """
    if not torch.are_deterministic_algorithms_enabled():
        return
    message = "deform backend triton adds gradients in any order; gather has the same bits again"
    if not torch.is_deterministic_algorithms_warn_only_enabled():
        raise RuntimeError(message)
    warnings.warn(message, stacklevel=2)
