"""The DyHead block computed fast: all levels in one table, norms and attentions as one pass.

It computes what `dyhead_block.py` says, with the block's parameters. Two observations:

*One table.* All levels stand in one table of rows (see `pyramid_table.py`), so that a block takes
one gathered convolution (see `gather.py`), whatever the number of levels.

*One pass.* Behind the convolutions everything is affine per image and channel until the maximum:

    group norm       n_k = gain_k * c_k + shift_k        from the mean and variance of c_k
    scale attention  m = 1/K sum over k of gate_k * n_k  the gate from the mean of n_k
    task attention   y = max(slope_1 m + shift_1, slope_2 m + shift_2)   from the mean of m

where c_k are the convolutions' K candidates for a level. All the means follow from those of the
c_k, so the gains, gates and slopes are known before any map is touched. The candidate from the
coarser level is upsampled after its norm; upsampling is linear and keeps constants, so it may as
well be upsampled before, and the mean of the upsampled map is a fixed weighted mean of the coarse
one.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dyhead_det.layers.context import Context
from dyhead_det.layers.dyhead_block import (
    NUM_GROUPS,
    DyHeadBlock,
    bring_to_coarser,
    resize,
)
from dyhead_det.layers.gather import (
    columns_of_maps,
    cpu_chunk_numbers,
    gather_conv,
    product_dtype,
    rows_of_maps,
)
from dyhead_det.layers.pyramid_table import Size, Table, as_maps, build_table


def attend_fast(blocks: Iterable[nn.Module], levels: list[Tensor]) -> list[Tensor]:
    """Apply a stack of `DyHeadBlock` to a pyramid; maps in and out as in `DyHead.forward`.

    Under autocast the table and the products are in the autocast type; coordinates, statistics
    and attentions are in float32.
    """
    device, dtype = levels[0].device, levels[0].dtype
    table_dtype = product_dtype(levels[0])
    sizes_hw = tuple((x.shape[2], x.shape[3]) for x in levels)
    table = build_table(len(levels[0]), sizes_hw, device, _exact_dtype(table_dtype))
    with torch.autocast(device.type, enabled=False):
        rows = torch.cat([rows_of_maps(x.to(table_dtype)) for x in levels])
        for block in blocks:
            rows = _attend(cast(DyHeadBlock, block), rows, table)
        return [x.to(dtype) for x in table.maps(rows)]


def _attend(block: DyHeadBlock, rows: Tensor, table: Table) -> Tensor:
    """Apply one block to the rows (N, C) of a table."""
    convs = (block.same, block.finer, block.coarser)
    convolved = gather_conv(
        rows,
        _points(block, rows, table),
        [conv.weight for conv in convs],
        [conv.bias for conv in convs],
        table.places,
        table.num_places,
    )
    candidates = table.candidates(convolved)
    gains, shifts, pieces = _coefficients(block, candidates, table)
    attended = []
    for level, maps in enumerate(candidates):
        sizes_hw = table.sizes_hw[level : level + 2]
        attended.append(
            _Combine.apply(sizes_hw, shifts[level], pieces[:, level], *gains[level], *maps)
        )
    return torch.cat([level.flatten(0, 1) for level in attended])


def _points(block: DyHeadBlock, rows: Tensor, table: Table) -> Tensor:
    """Return offsets and masks, (27, P), of the table's places."""
    conv = block.offset_and_mask
    weight, bias = (each.to(rows.dtype) for each in conv.parameters())
    own, for_coarser = [], []
    for level, maps in enumerate(table.maps(rows)):
        # Coordinates need all the digits of float32.
        convolved = F.conv2d(maps, weight, bias, padding=1).to(table.mix.dtype)
        own.append(columns_of_maps(convolved))
        if level + 1 < len(table.sizes_hw):
            coarse_hw = table.sizes_hw[level + 1]
            coarse = bring_to_coarser(convolved, coarse_hw, rule=block.coarse_offsets)
            for_coarser.append(columns_of_maps(coarse))
    offset_and_mask = torch.cat([*own, *own[1:], *for_coarser], dim=1)
    return torch.cat((offset_and_mask[:18], offset_and_mask[18:].sigmoid()))


def _coefficients(
    block: DyHeadBlock, candidates: list[list[Tensor]], table: Table
) -> tuple[list[tuple[Tensor, ...]], Tensor, Tensor]:
    """Find what multiplies each candidate, what is added, and the two pieces of the maximum.

    Args:
        block: whose parameters.
        candidates: per level (B, H_l * W_l, C); those from coarser levels are not yet upsampled.
        table: the pyramid.

    Returns:
        Per level the gains (B, C) of its candidates; the shifts (L, B, C), so that
        m = sum of gain * candidate + shift; slope_1, shift_1, slope_2, shift_2, (4, L, B, C).
    """
    flat = list(chain.from_iterable(candidates))  # S of them
    mean, variance = _Moments.apply(*flat)  # (S, B, C)
    gain, shift = _group_norms(block, mean, variance, table.kinds)
    pooled = gain * _means_as_seen(flat, mean, table) + shift
    parameter_dtype = block.scale.score.weight.dtype
    gate = block.scale.gates(pooled.to(parameter_dtype))

    def average(x: Tensor) -> Tensor:
        """Average over the candidates of each level: (S, B, C) to (L, B, C)."""
        averaged: Tensor = torch.tensordot(table.mix, x, dims=1)
        return averaged

    pieces = torch.stack(block.task.coefficients(average(gate * pooled).to(parameter_dtype)))
    gains = (gate * gain * table.mix.sum(dim=0)[:, None, None]).unbind()
    gains_of_level = []
    for maps in candidates:
        gains_of_level.append(gains[: len(maps)])
        gains = gains[len(maps) :]
    return gains_of_level, average(gate * shift), pieces.to(mean.dtype)


def _group_norms(
    block: DyHeadBlock, mean: Tensor, variance: Tensor, kinds: Tensor
) -> tuple[Tensor, Tensor]:
    """Write the norms of candidates with these moments, (S, B, C), as gains and shifts."""
    norms = [conv.norm for conv in (block.same, block.finer, block.coarser)]
    weight = torch.stack([norm.weight for norm in norms])[kinds, None]  # (S, 1, C)
    bias = torch.stack([norm.bias for norm in norms])[kinds, None]
    grouped = (*mean.shape[:2], NUM_GROUPS, mean.shape[2] // NUM_GROUPS)
    means = mean.view(grouped)
    group_mean = means.mean(dim=3, keepdim=True)
    # Within the channels plus between the channels.
    spread = variance.view(grouped) + (means - group_mean).square()
    scale = (spread.mean(dim=3, keepdim=True) + norms[0].eps).rsqrt()
    gain = weight * scale.expand(grouped).reshape(mean.shape)
    return gain, bias - gain * group_mean.expand(grouped).reshape(mean.shape)


def _means_as_seen(flat: list[Tensor], mean: Tensor, table: Table) -> Tensor:
    """Replace the means (S, B, C) of candidates from coarser levels by those after upsampling."""
    seen = list(mean.unbind())
    for s, weights in zip(table.from_coarser, table.upsampled_mean, strict=True):
        seen[s] = (weights @ flat[s].to(mean.dtype))[:, 0]
    return torch.stack(seen)


class _Moments(torch.autograd.Function):
    """Mean and variance over the places of S maps (B, H * W, C), both (S, B, C)."""

    @staticmethod
    def forward(ctx: Context, *candidates: Tensor) -> tuple[Tensor, Tensor]:
        means, variances = [], []
        for maps in candidates:
            mean = maps.mean(dim=1, dtype=_exact_dtype(maps.dtype))
            # Centered before it is squared: a difference of mean squares would cancel.
            squares = [
                (part - mean[:, None]).square_().sum(dim=1)
                for part in torch.split(maps, _chunk_size(maps), dim=1)
            ]
            means.append(mean)
            variances.append(sum(squares[1:], start=squares[0]) / maps.shape[1])
        mean = torch.stack(means)
        ctx.save_for_backward(mean, *candidates)
        return mean, torch.stack(variances)

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad_mean: Tensor, grad_variance: Tensor) -> tuple[Tensor, ...]:
        mean, *candidates = ctx.saved_tensors
        count = mean.new_tensor([maps.shape[1] for maps in candidates])[:, None, None]
        # (grad_mean + 2 grad_variance (maps - mean)) / number of places
        slope = 2 * grad_variance / count
        constant = grad_mean / count - slope * mean
        return tuple(
            torch.addcmul(constant[s, :, None], maps.to(mean.dtype), slope[s, :, None]).to(
                maps.dtype
            )
            for s, maps in enumerate(candidates)
        )


class _Combine(torch.autograd.Function):
    """The one pass over a level: max over two pieces of the weighed sum of its candidates.

    Saves its arguments only and sums again in backward.
    """

    @staticmethod
    def forward(
        ctx: Context,
        sizes_hw: tuple[Size, ...],
        shift: Tensor,
        pieces: Tensor,
        *gains_and_maps: Tensor,
    ) -> Tensor:
        """See `_coefficients` for the shapes.

        Args:
            ctx: what backward needs.
            sizes_hw: of the level and, where there is one, of the coarser level; then the last
                candidate has that size.
            shift: (B, C).
            pieces: (4, B, C).
            gains_and_maps: K gains (B, C) and K candidates (B, H * W, C).
        """
        ctx.save_for_backward(shift, pieces, *gains_and_maps)
        ctx.sizes_hw = sizes_hw
        gains, maps = _halves(gains_and_maps)
        if len(sizes_hw) == 2:
            maps[-1] = _upsample(maps[-1].to(shift.dtype), sizes_hw)
        out = torch.empty_like(maps[0])
        for part in _chunks(out):
            fused = _weighed_sum(shift, gains, maps, part)
            out[:, part] = torch.maximum(*_two_pieces(fused, pieces))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        shift, pieces, *gains_and_maps = ctx.saved_tensors
        gains, maps = _halves(gains_and_maps)
        grad_maps = [torch.empty_like(each) for each in maps]
        is_upsampled = len(ctx.sizes_hw) == 2
        if is_upsampled:
            with torch.enable_grad():
                coarse = maps[-1].to(shift.dtype).detach().requires_grad_()
                upsampled = _upsample(coarse, ctx.sizes_hw)
            maps[-1], grad_maps[-1] = upsampled.detach(), torch.empty_like(upsampled)
        grad_pieces = torch.zeros_like(pieces)
        grad_gains = [torch.zeros_like(gain) for gain in gains]
        for part in _chunks(grad):
            fused = _weighed_sum(shift, gains, maps, part)
            first, second = _two_pieces(fused, pieces)
            # 1 where the first is larger, 0 where the second is, and a half of both in between.
            share = (torch.sign(first - second) + 1) / 2
            grad_first = share * grad[:, part]
            grad_second = grad[:, part] - grad_first
            grad_pieces[0] += (grad_first * fused).sum(dim=1)
            grad_pieces[1] += grad_first.sum(dim=1)
            grad_pieces[2] += (grad_second * fused).sum(dim=1)
            grad_pieces[3] += grad_second.sum(dim=1)
            grad_fused = grad_first * pieces[0, :, None] + grad_second * pieces[2, :, None]
            for k, gain in enumerate(gains):
                grad_maps[k][:, part] = grad_fused * gain[:, None]
                grad_gains[k] += (grad_fused * maps[k][:, part]).sum(dim=1)
        if is_upsampled:
            (grad_coarse,) = torch.autograd.grad(upsampled, coarse, grad_maps[-1])
            grad_maps[-1] = grad_coarse.to(grad.dtype)
        grad_shift = grad_pieces[1] * pieces[0] + grad_pieces[3] * pieces[2]
        return None, grad_shift, grad_pieces, *grad_gains, *grad_maps


def _weighed_sum(shift: Tensor, gains: list[Tensor], maps: list[Tensor], part: slice) -> Tensor:
    total = shift[:, None]
    for gain, candidate in zip(gains, maps, strict=True):
        total = torch.addcmul(total, candidate[:, part].to(shift.dtype), gain[:, None])
    return total


def _two_pieces(fused: Tensor, pieces: Tensor) -> tuple[Tensor, Tensor]:
    slope_1, shift_1, slope_2, shift_2 = pieces[:, :, None]
    return torch.addcmul(shift_1, fused, slope_1), torch.addcmul(shift_2, fused, slope_2)


def _upsample(coarse: Tensor, sizes_hw: tuple[Size, ...]) -> Tensor:
    """Bring maps (B, h * w, C) of the second size to the first."""
    upsampled = resize(as_maps(coarse, sizes_hw[1]), sizes_hw[0])
    return rows_of_maps(upsampled).view(len(coarse), math.prod(sizes_hw[0]), coarse.shape[2])


def _halves(gains_and_maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    middle = len(gains_and_maps) // 2
    return list(gains_and_maps[:middle]), list(gains_and_maps[middle:])


def _exact_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type of coordinates, statistics and attentions: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def _chunk_size(maps: Tensor) -> int:
    """Return how many places of (B, H * W, C) stay in the cache (CPU) or fill the device (GPU)."""
    numbers = cpu_chunk_numbers() if maps.device.type == "cpu" else 2**26
    return max(1, numbers // max(1, len(maps) * maps.shape[2]))


def _chunks(maps: Tensor) -> Iterator[slice]:
    size = _chunk_size(maps)
    for first in range(0, maps.shape[1], size):
        yield slice(first, first + size)
