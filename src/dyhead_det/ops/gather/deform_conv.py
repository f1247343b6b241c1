"""Modulated deformable convolution by gathered features: fast in plain torch, little memory.

Feature maps are kept channels-last as a matrix of features, (R, C), one row a pixel. Sampling a map
between its pixels is then a weighted sum of four rows, which is what `embedding_bag` computes:

    columns[p, t] = sum over the 4 neighbors k of  weights[p, t, k] * features[index[p, t, k]]
    out[p]        = columns[p].flatten() @ kernel + bias

with weights = mask * bilinear weights, zero for neighbors outside the map (see `sampling_grid.py`
and `row_sums.py`). The columns, nine times the size of the output, exist for some hundred locations
at a time, so that they stay in the cache, and backward samples again instead of keeping them. Each
thread has its own locations (see `parallel.py`).
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dyhead_det.ops.gather.context import Context
from dyhead_det.ops.gather.parallel import in_parallel, slices
from dyhead_det.ops.gather.products import linear
from dyhead_det.ops.gather.row_sums import grad_of_rows, sum_rows
from dyhead_det.ops.gather.sampling_grid import (
    SamplingGrid,
    bilinear_neighbors,
    build_sampling_grid,
)

# Numbers of output per chunk, on a CPU for each thread; its columns are nine times as many.
CPU_CHUNK_NUMBERS = 2**17
GPU_CHUNK_NUMBERS = 2**23

Chunk = tuple[int, slice]
"""Which kernel, and which of all locations."""


class FeatureConv(Protocol):
    """Convolves features at learned sampling locations; `gather_conv` says what is what."""

    def __call__(
        self,
        features: Tensor,
        offsets_and_masks: Tensor,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        grid: SamplingGrid,
        num_locations: list[int],
    ) -> Tensor:
        """Return (P, C_out)."""


def gather_deform_conv2d(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, *, stride: int
) -> Tensor:
    """Compute `modulated_deform_conv2d` for maps (B, C, H, W); half precision is welcome."""
    return convolve_maps(gather_conv, x, offset, mask, weight, bias, stride=stride)


def convolve_maps(
    convolve: FeatureConv,
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    stride: int,
) -> Tensor:
    """Compute `modulated_deform_conv2d` for maps (B, C, H, W) by a convolution of features."""
    out_hw = (offset.shape[2], offset.shape[3])
    grid = build_sampling_grid(
        len(x),
        out_hw,
        source_start=0,
        source_hw=(x.shape[2], x.shape[3]),
        stride=stride,
        device=x.device,
    )
    offsets_and_masks = locations_last(torch.cat((offset, mask), dim=1))
    out = convolve(features_of_maps(x), offsets_and_masks, [weight], [bias], grid, [len(grid)])
    return out.view(len(x), *out_hw, len(weight)).permute(0, 3, 1, 2)


def product_dtype(x: Tensor) -> torch.dtype:
    """Return the type to compute products in: the autocast type where autocast is on."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def exact_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type of coordinates, statistics and attentions: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def features_of_maps(maps: Tensor) -> Tensor:
    """Turn maps (B, K, H, W) into features (B * H * W, K); a view where they are channels-last."""
    return maps.permute(0, 2, 3, 1).contiguous().flatten(0, 2)


def locations_last(maps: Tensor) -> Tensor:
    """Turn maps (B, K, H, W) into (K, B * H * W)."""
    return maps.transpose(0, 1).flatten(1)


def gather_conv(
    features: Tensor,
    offsets_and_masks: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    grid: SamplingGrid,
    num_locations: list[int],
) -> Tensor:
    """Convolve at learned sampling locations, with one of several kernels each.

    Args:
        features: of one or several maps, (R, C), in any floating type; the products are computed
            in it.
        offsets_and_masks: (dy, dx) of the nine taps and then their nine masks, (27, P), float32 or
            float64.
        weights: K kernels, each (C_out, C, 3, 3).
        biases: K, each (C_out,).
        grid: P output locations.
        num_locations: how many of them, in order, use each kernel; K numbers with the sum P.

    Returns:
        (P, C_out), in the type of ``features``.
    """
    parameters = [each.to(features.dtype) for each in (*weights, *biases)]
    out: Tensor = _GatherConv.apply(features, offsets_and_masks, grid, num_locations, *parameters)
    return out


class _GatherConv(torch.autograd.Function):
    """Saves its arguments only; neither columns nor bilinear weights."""

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
        kernels = [_kernel(weight) for weight in weights]
        out = features.new_empty(len(grid), len(biases[0]))
        index, bilinear_weights = bilinear_neighbors(offsets_and_masks, grid, features.dtype)

        def convolve(chunk: Chunk) -> None:
            k, here = chunk
            columns = sum_rows(features, index[here], bilinear_weights[here])
            out[here] = linear(columns.view(len(out[here]), -1), kernels[k], biases[k])

        list(in_parallel(convolve, _chunks(num_locations, features), out))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        num_locations, grid = ctx.num_locations, ctx.grid
        features, offsets_and_masks, *parameters = (each.detach() for each in ctx.saved_tensors)
        kernels = [_kernel(weight) for weight in parameters[: len(num_locations)]]
        with torch.enable_grad():
            index, bilinear_weights = bilinear_neighbors(
                offsets_and_masks.requires_grad_(), grid, features.dtype
            )
        weights = bilinear_weights.detach()
        grad_weights = torch.empty_like(weights)

        def differentiate(chunk: Chunk) -> tuple[Tensor, Tensor, Tensor]:
            k, here = chunk
            with torch.enable_grad():
                weights_here = weights[here].requires_grad_()
                sampled = sum_rows(features, index[here], weights_here)
            columns = sampled.detach().view(len(grad[here]), -1)
            grad_sampled = linear(grad[here], kernels[k].t()).view_as(sampled)
            (grad_weights[here],) = torch.autograd.grad(sampled, weights_here, grad_sampled)
            return (
                linear(grad[here].t(), columns.t()),
                *grad_of_rows(
                    index[here], weights[here], grad_sampled, rows_read=grid.rows_read(here)
                ),
            )

        # Sums over many chunks: in half precision they would lose the small ones.
        sum_dtype = exact_dtype(features.dtype)
        grad_features = torch.zeros_like(features, dtype=sum_dtype)
        grad_kernels = [torch.zeros_like(kernel, dtype=sum_dtype) for kernel in kernels]
        chunks = _chunks(num_locations, features)
        for (k, _), (grad_kernel, touched, grad_touched) in zip(
            chunks, in_parallel(differentiate, chunks, grad), strict=True
        ):
            grad_kernels[k] += grad_kernel
            grad_features.index_add_(0, touched, grad_touched.to(sum_dtype))
        (grad_offsets_and_masks,) = torch.autograd.grad(
            bilinear_weights, offsets_and_masks, grad_weights
        )
        grad_parameters = [
            *(
                grad_kernel.to(features.dtype).view(-1, 3, 3, features.shape[1]).permute(0, 3, 1, 2)
                for grad_kernel in grad_kernels
            ),
            *(of_kernel.sum(dim=0) for of_kernel in torch.split(grad, num_locations)),
        ]
        grad_features = grad_features.to(features.dtype)
        return grad_features, grad_offsets_and_masks, None, None, *grad_parameters


def _kernel(weight: Tensor) -> Tensor:
    """Bring a kernel (C_out, C, 3, 3) to the order of the columns, (C_out, 9 * C)."""
    return weight.detach().permute(0, 2, 3, 1).flatten(1)


def _chunks(num_locations: list[int], features: Tensor) -> list[Chunk]:
    """Cut each kernel's locations into chunks whose columns fit the cache (CPU), memory (GPU)."""
    numbers = CPU_CHUNK_NUMBERS if features.device.type == "cpu" else GPU_CHUNK_NUMBERS
    ends = list(accumulate(num_locations, initial=0))
    return [
        (k, chunk)
        for k, (begin, end) in enumerate(pairwise(ends))
        for chunk in slices(begin, end, numbers // features.shape[1])
    ]
