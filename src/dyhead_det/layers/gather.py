"""Modulated deformable convolution as weighted sums of rows: fast in plain torch, little memory.

Maps are kept channels-last as a table of rows, one row of C numbers per place. Reading a map
between its pixels is then a weighted sum of four rows, which is what `embedding_bag` computes:

    columns[p, t] = sum over the 4 corners k of  weights[p, t, k] * rows[index[p, t, k]]
    out[p]        = columns[p].flatten() @ kernel + bias

with weights = mask * bilinear weights, zero for corners outside the map (see `row_sums.py`). The
columns, nine times the size of the output, exist for some hundred places at a time, so that they
stay in the cache, and backward reads them again instead of keeping them.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dyhead_det.layers.context import Context
from dyhead_det.layers.products import linear
from dyhead_det.layers.row_sums import add_to_rows, sum_rows

# Numbers of output per chunk, on a CPU for each thread; its columns are nine times as many.
CPU_CHUNK_NUMBERS = 2**17
GPU_CHUNK_NUMBERS = 2**23


@dataclass(frozen=True)
class Places:
    """For P output places: in which map of the table, and where in it, their nine taps lie.

    start: the table's row where the map begins, (P,) int32;
    size_hw: the map's height and width, (2, 1, P) float32;
    tap_yx: the taps before they are moved, in pixels of the map, (2, 9, P) float32.
    """

    start: Tensor
    size_hw: Tensor
    tap_yx: Tensor

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, part: slice) -> "Places":
        return Places(self.start[part], self.size_hw[..., part], self.tap_yx[..., part])


def places_of_maps(
    batch: int,
    out_hw: tuple[int, int],
    *,
    source_start: int,
    source_hw: tuple[int, int],
    stride: int,
    device: torch.device,
) -> Places:
    """Lay the grid of B output maps over B source maps that stand in a table one after the other.

    Args:
        batch: B; the places are ordered by image, row and column.
        out_hw: size of the output maps.
        source_start: the table's row where the first source map begins.
        source_hw: size of the source maps.
        stride: source pixels per output place.
        device: where the table is.
    """
    num_places = math.prod(out_hw)
    starts = source_start + math.prod(source_hw) * torch.arange(batch, device=device)
    lines = [stride * torch.arange(size, device=device) for size in out_hw]
    centers = torch.stack(torch.meshgrid(*lines, indexing="ij"))  # (2, H, W)
    around = torch.arange(-1, 2, device=device)
    kernel = torch.stack(torch.meshgrid(around, around, indexing="ij"))  # (2, 3, 3)
    taps = (kernel.view(2, 9, 1) + centers.view(2, 1, num_places)).float()
    return Places(
        start=starts.int().repeat_interleave(num_places),
        size_hw=taps.new_tensor(source_hw)[:, None, None].repeat(1, 1, batch * num_places),
        tap_yx=taps.repeat(1, 1, batch),
    )


def concatenate_places(parts: list[Places]) -> Places:
    """Join places that read from the same table."""
    return Places(
        start=torch.cat([part.start for part in parts]),
        size_hw=torch.cat([part.size_hw for part in parts], dim=2),
        tap_yx=torch.cat([part.tap_yx for part in parts], dim=2),
    )


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
        index, corner_weights = corners(points, places, rows.dtype)
        out = rows.new_empty(len(places), len(biases[0]))
        for k, part in _chunks(num_places, rows):
            columns = sum_rows(rows, index[part], corner_weights[part])
            out[part] = linear(columns.view(len(out[part]), -1), kernels[k], biases[k])
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
        # Sums over many chunks: in half precision they would lose the small ones.
        sum_dtype = torch.promote_types(rows.dtype, torch.float32)
        grad_rows = torch.zeros_like(rows, dtype=sum_dtype)
        grad_kernels = [torch.zeros_like(kernel, dtype=sum_dtype) for kernel in kernels]
        grad_corner_weights = torch.empty_like(weights)
        for k, part in _chunks(num_places, rows):
            with torch.enable_grad():
                weights_here = weights[part].requires_grad_()
                read = sum_rows(rows, index[part], weights_here)
            columns = read.detach().view(len(grad[part]), -1)
            grad_kernels[k] += linear(grad[part].t(), columns.t())
            grad_read = linear(grad[part], kernels[k].t()).view_as(read)
            (grad_corner_weights[part],) = torch.autograd.grad(read, weights_here, grad_read)
            add_to_rows(grad_rows, index[part], weights[part], grad_read)
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


def corners(points: Tensor, places: Places, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Find the four rows that each tap of each place reads, and their weights.

    Args:
        points: (27, P), see `gather_conv`.
        places: P of them.
        dtype: of the weights returned.

    Returns:
        Rows of the table and weights, both (P, 9, 4); the weights follow the points
        differentiably. At a whole coordinate the derivative is the one to the right.
    """
    # Places come last until the end: long inner loops, several times faster here.
    offset_yx = points[:18].view(9, 2, -1).transpose(0, 1)
    mask = points[18:]
    point = places.tap_yx + offset_yx  # (2, 9, P)
    # A point outside reads the border of zeros at -1; this also keeps every index in its map.
    point = torch.where((point >= -1) & (point < places.size_hw), point, -1)
    low = point.detach().floor()  # whole numbers in [-1, size - 1]
    high = low + 1
    beyond = point - low
    # The clamped factors are 0 for a corner outside the map, otherwise 1.
    low_y, low_x = (1 - beyond) * high.clamp(max=1)  # weights, (9, P)
    high_y, high_x = beyond * (places.size_hw - high).clamp(max=1)
    low_y, high_y = low_y * mask, high_y * mask
    weights = (low_y * low_x, low_y * high_x, high_y * low_x, high_y * high_x)  # each (9, P)

    top, left = low.clamp(min=0)
    bottom, right = high.minimum(places.size_hw - 1)
    width = places.size_hw[1]
    # Exact in float32 for maps of up to 2^24 pixels.
    top, bottom = top * width, bottom * width
    index = (top + left, top + right, bottom + left, bottom + right)
    rows = torch.stack(index, dim=1).int() + places.start  # (9, 4, P)
    return _places_first(rows), _places_first(torch.stack(weights, dim=1).to(dtype))


def _places_first(x: Tensor) -> Tensor:
    """Turn (9, 4, P) into (P, 9, 4), in memory too."""
    return x.flatten(0, 1).t().contiguous().view(-1, 9, 4)


def cpu_chunk_numbers() -> int:
    """Return how many numbers to compute at a time: as many as the caches of all threads hold."""
    return CPU_CHUNK_NUMBERS * torch.get_num_threads()


def _chunks(num_places: list[int], rows: Tensor) -> Iterator[tuple[int, slice]]:
    """Yield each kernel's places in parts whose columns fit the cache (CPU) or memory (GPU)."""
    numbers = cpu_chunk_numbers() if rows.device.type == "cpu" else GPU_CHUNK_NUMBERS
    size = max(1, numbers // rows.shape[1])
    end = 0
    for k, count in enumerate(num_places):
        begin, end = end, end + count
        for first in range(begin, end, size):
            yield k, slice(first, min(first + size, end))
