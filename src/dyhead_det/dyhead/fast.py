"""The DyHead block computed fast: all levels in one table, norms and attentions as one pass.

It computes what `block.py` says, with the block's parameters. Two observations:

*One table.* All levels stand in one table of rows (see `pyramid_table.py`), so that a block takes
one gathered convolution (see `ops/gather/deform_conv.py`), whatever the number of levels.

*One pass.* Behind the convolutions everything is affine per image and channel until the maximum:

    group norm       n_k = gain_k * c_k + shift_k        from the mean and variance of c_k
    scale attention  m = 1/K sum over k of gate_k * n_k  the gate from the mean of n_k
    task attention   y = max(slope_1 m + shift_1, slope_2 m + shift_2)   from the mean of m

where c_k are the convolutions' K candidates for a level. All the means follow from those of the
c_k, so the gains, gates and slopes are known before any map is touched. The candidate from the
coarser level is upsampled after its norm; upsampling is linear and keeps constants, so it may as
well be upsampled before, and the mean of the upsampled map is a fixed weighted mean of the coarse
one (see `fused_passes.py`).
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dyhead_det.dyhead.block import NUM_GROUPS, DyHeadBlock, bring_to_coarser
from dyhead_det.dyhead.fused_passes import Combine, Moments, combine_again
from dyhead_det.dyhead.pyramid_table import Table, build_table
from dyhead_det.ops.gather.deform_conv import (
    columns_of_maps,
    exact_dtype,
    gather_conv,
    product_dtype,
    rows_of_maps,
)
from dyhead_det.ops.gather.recompute import recomputed


def attend_fast(blocks: Iterable[nn.Module], levels: list[Tensor]) -> list[Tensor]:
    """Apply a stack of `DyHeadBlock` to a pyramid; maps in and out as in `DyHead.forward`.

    Under autocast the table and the products are in the autocast type; coordinates, statistics
    and attentions are in float32.
    """
    device, dtype = levels[0].device, levels[0].dtype
    table_dtype = product_dtype(levels[0])
    sizes_hw = tuple((x.shape[2], x.shape[3]) for x in levels)
    table = build_table(len(levels[0]), sizes_hw, device, exact_dtype(table_dtype))
    with torch.autocast(device.type, enabled=False):
        rows = torch.cat([rows_of_maps(x.to(table_dtype)) for x in levels])
        keeping: AbstractContextManager[None] = nullcontext()
        for block in cast(Iterable[DyHeadBlock], blocks):
            with keeping:
                convolved = _convolve(block, rows, table)
            del rows  # before others of that size are made
            rows = _combine(block, convolved, table)
            del convolved
            if rows.grad_fn is not None:
                # To combine the rows again takes a fiftieth of a block's time.
                keeping = recomputed(rows, partial(combine_again, rows.grad_fn))
        return [x.to(dtype) for x in table.maps(rows)]


def _convolve(block: DyHeadBlock, rows: Tensor, table: Table) -> Tensor:
    """Compute what all levels see of themselves and their neighbours, (P, C), from rows (N, C)."""
    convs = (block.same, block.finer, block.coarser)
    return gather_conv(
        rows,
        _points(block, rows, table),
        [conv.weight for conv in convs],
        [conv.bias for conv in convs],
        table.places,
        table.num_places,
    )


def _combine(block: DyHeadBlock, convolved: Tensor, table: Table) -> Tensor:
    """Norm, weigh and add up what the levels see, (P, C), to new rows (N, C)."""
    convolved, mean, variance, mean_as_seen = Moments.apply(convolved, table)
    coefficients = _coefficients(block, mean, variance, mean_as_seen, table)
    rows: Tensor = Combine.apply(convolved, *coefficients, table)
    return rows


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
    points = torch.cat([*own, *own[1:], *for_coarser], dim=1)
    points[18:].sigmoid_()
    return points


def _coefficients(
    block: DyHeadBlock, mean: Tensor, variance: Tensor, mean_as_seen: Tensor, table: Table
) -> tuple[Tensor, Tensor, Tensor]:
    """Find what multiplies each candidate, what is added, and the two pieces of the maximum.

    Args:
        block: whose parameters.
        mean: of the candidates, (S, B, C).
        variance: of the candidates, (S, B, C).
        mean_as_seen: of the candidates once they are upsampled, (S, B, C).
        table: the pyramid.

    Returns:
        The gains (S, B, C) and the shifts (L, B, C), so that m = sum of gain * candidate + shift
        over the candidates of a level; slope_1, shift_1, slope_2, shift_2, (4, L, B, C).
    """
    gain, shift = _group_norms(block, mean, variance, table.kinds)
    pooled = gain * mean_as_seen + shift
    parameter_dtype = block.scale.score.weight.dtype
    gate = block.scale.gates(pooled.to(parameter_dtype))

    def average(x: Tensor) -> Tensor:
        """Average over the candidates of each level: (S, B, C) to (L, B, C)."""
        averaged: Tensor = torch.tensordot(table.mix, x, dims=1)
        return averaged

    pieces = torch.stack(block.task.coefficients(average(gate * pooled).to(parameter_dtype)))
    gains = gate * gain * table.mix.sum(dim=0)[:, None, None]
    return gains, average(gate * shift), pieces.to(mean.dtype)


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
