"""Modulated deformable convolution as weighted sums of rows: fast in plain torch, little memory.

Maps are kept channels-last as a table of rows, one row of C numbers per place. Reading a map
between its pixels is then a weighted sum of four rows, which is what `embedding_bag` computes:

    columns[p, t] = sum over the 4 corners k of  weights[p, t, k] * rows[index[p, t, k]]
    out[p]        = columns[p].flatten() @ kernel + bias

with weights = mask * bilinear weights, zero for corners outside the map (see `sampling_grid.py` and
`row_sums.py`). The columns, nine times the size of the output, exist for some hundred places at a
time, so that they stay in the cache, and backward reads them again instead of keeping them. Each
thread has its own places (see `parallel.py`).
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dyhead_det.ops.gather.context import Context
from dyhead_det.ops.gather.parallel import in_parallel, slices
from dyhead_det.ops.gather.products import linear
from dyhead_det.ops.gather.row_sums import grad_of_rows, sum_rows
from dyhead_det.ops.gather.sampling_grid import Places, corners, places_of_maps

# Numbers of output per chunk, on a CPU for each thread; its columns are nine times as many.
CPU_CHUNK_NUMBERS = 2**17
GPU_CHUNK_NUMBERS = 2**23

Chunk = tuple[int, slice]
"""Which kernel, and which of all places."""


def gather_deform_conv2d(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, *, stride: int
) -> Tensor:
    """Compute `modulated_deform_conv2d` for maps (B, C, H, W); half precision is welcome."""
    out_hw = (offset.shape[2], offset.shape[3])
    places = places_of_maps(
        len(x),
        out_hw,
        source_start=0,
        source_hw=(x.shape[2], x.shape[3]),
        stride=stride,
        device=x.device,
    )
    points = columns_of_maps(torch.cat((offset, mask), dim=1))
    out = gather_conv(rows_of_maps(x), points, [weight], [bias], places, [len(places)])
    return out.view(len(x), *out_hw, len(weight)).permute(0, 3, 1, 2)


def product_dtype(x: Tensor) -> torch.dtype:
    """Return the type to compute products in: the autocast type where autocast is on."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def exact_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type of coordinates, statistics and attentions: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def rows_of_maps(maps: Tensor) -> Tensor:
    """Turn maps (B, K, H, W) into rows (B * H * W, K); a view where they are channels-last."""
    return maps.permute(0, 2, 3, 1).contiguous().flatten(0, 2)


def columns_of_maps(maps: Tensor) -> Tensor:
    """Turn maps (B, K, H, W) into columns (K, B * H * W)."""
    return maps.transpose(0, 1).flatten(1)


def gather_conv(
    rows: Tensor,
    points: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    places: Places,
    num_places: list[int],
) -> Tensor:
    """Convolve at learned places of a table, with one of several kernels each.

    Args:
        rows: the table, (N, C), in any floating type; the products are computed in it.
        points: (dy, dx) of the nine taps and then their nine masks, (27, P), float32 or float64.
        weights: K kernels, each (C_out, C, 3, 3).
        biases: K, each (C_out,).
        places: the grids that are convolved.
        num_places: how many places, in order, use each kernel; K numbers with the sum P.

    Returns:
        (P, C_out), in the type of ``rows``.
    """
    parameters = [each.to(rows.dtype) for each in (*weights, *biases)]
    out: Tensor = _GatherConv.apply(rows, points, places, num_places, *parameters)
    return out


class _GatherConv(torch.autograd.Function):
    """Saves its arguments only; neither columns nor bilinear weights."""

    @staticmethod
    def forward(
        ctx: Context,
        rows: Tensor,
        points: Tensor,
        places: Places,
        num_places: list[int],
        *parameters: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(rows, points, *parameters)
        ctx.places, ctx.num_places = places, num_places
        weights, biases = parameters[: len(num_places)], parameters[len(num_places) :]
        kernels = [_kernel(weight) for weight in weights]
        out = rows.new_empty(len(places), len(biases[0]))
        index, corner_weights = corners(points, places, rows.dtype)

        def convolve(chunk: Chunk) -> None:
            k, part = chunk
            columns = sum_rows(rows, index[part], corner_weights[part])
            out[part] = linear(columns.view(len(out[part]), -1), kernels[k], biases[k])

        list(in_parallel(convolve, _chunks(num_places, rows), out))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        num_places = ctx.num_places
        rows, points, *parameters = (each.detach() for each in ctx.saved_tensors)
        kernels = [_kernel(weight) for weight in parameters[: len(num_places)]]
        with torch.enable_grad():
            index, corner_weights = corners(points.requires_grad_(), ctx.places, rows.dtype)
        weights = corner_weights.detach()
        grad_corner_weights = torch.empty_like(weights)

        def differentiate(chunk: Chunk) -> tuple[Tensor, Tensor, Tensor]:
            k, part = chunk
            with torch.enable_grad():
                weights_here = weights[part].requires_grad_()
                read = sum_rows(rows, index[part], weights_here)
            columns = read.detach().view(len(grad[part]), -1)
            grad_read = linear(grad[part], kernels[k].t()).view_as(read)
            (grad_corner_weights[part],) = torch.autograd.grad(read, weights_here, grad_read)
            return (
                linear(grad[part].t(), columns.t()),
                *grad_of_rows(index[part], weights[part], grad_read),
            )

        # Sums over many chunks: in half precision they would lose the small ones.
        sum_dtype = exact_dtype(rows.dtype)
        grad_rows = torch.zeros_like(rows, dtype=sum_dtype)
        grad_kernels = [torch.zeros_like(kernel, dtype=sum_dtype) for kernel in kernels]
        chunks = _chunks(num_places, rows)
        for (k, _), (grad_kernel, touched, grad_touched) in zip(
            chunks, in_parallel(differentiate, chunks, grad), strict=True
        ):
            grad_kernels[k] += grad_kernel
            grad_rows.index_add_(0, touched, grad_touched.to(sum_dtype))
        (grad_points,) = torch.autograd.grad(corner_weights, points, grad_corner_weights)
        grad_weights = [
            grad_kernel.to(rows.dtype).view(-1, 3, 3, rows.shape[1]).permute(0, 3, 1, 2)
            for grad_kernel in grad_kernels
        ]
        grad_biases = [part.sum(dim=0) for part in torch.split(grad, num_places)]
        return grad_rows.to(rows.dtype), grad_points, None, None, *grad_weights, *grad_biases


def _kernel(weight: Tensor) -> Tensor:
    """Bring a kernel (C_out, C, 3, 3) to the order of the columns, (C_out, 9 * C)."""
    return weight.detach().permute(0, 2, 3, 1).flatten(1)


def _chunks(num_places: list[int], rows: Tensor) -> list[Chunk]:
    """Cut each kernel's places into parts whose columns fit the cache (CPU) or memory (GPU)."""
    numbers = CPU_CHUNK_NUMBERS if rows.device.type == "cpu" else GPU_CHUNK_NUMBERS
    ends = list(accumulate(num_places, initial=0))
    return [
        (k, part)
        for k, (begin, end) in enumerate(pairwise(ends))
        for part in slices(begin, end, numbers // rows.shape[1])
    ]
