"""The DyHead block computed fast: one gathered convolution for all levels, then fused passes.

It computes what `block.py` says, with the block's parameters. Two observations:

*One matrix.* The features of all levels lie in one matrix (see `pyramid_layout.py`), so that a
block takes one gathered convolution (`ops/gather/deform_conv.py`, or `ops/triton` on a GPU),
whatever the number of levels.

*One pass.* Behind the convolutions everything is affine per image and channel until the maximum:

    group norm       n_k = gain_k * c_k + shift_k        from the mean and variance of c_k
    scale attention  m = 1/K sum over k of gate_k * n_k  the gate from the mean of n_k
    task attention   y = max(slope_1 m + shift_1, slope_2 m + shift_2)   from the mean of m

where c_k are the convolutions' K candidates for a level. All the means follow from those of the
c_k, so the gains, gates and slopes are known before any map is touched. The candidate from the
coarser level is upsampled after its norm; upsampling is linear and keeps constants, so it may as
well be upsampled before, and the mean of the upsampled map is a fixed weighted mean of the coarse
one (see `fused_passes.py`).

What backward keeps of a block are its convolved features (P, C), the offsets and masks, and small
statistics; each custom function saves its arguments and nothing else, writes only into memory that
it made itself, and gives no second derivative. A block's result y, the next block's input, is not
kept either, by the one device that needs care:

* While the next block convolves, `recomputed` replaces y, known by its storage, by a call of
  `combine` for whatever saves it: the gathered convolution, and the one that makes offsets.
  Everything else that is saved there, such as parameters, is saved as ever.
* The call refers to the arguments of `combine` themselves. `Combine`, which made y, saves the same
  tensors, so they cost nothing; and since the call holds them, they are there whenever somebody
  asks for y: twice (a retained graph), or never (a partial backward).
* y is local to `attend_fast`, which hands it to that convolution only and never writes into it. The
  last block's result, which callers get, is kept by those who save it.
* A block whose result needs no gradient is not part of a graph, and its result is saved as it is.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dyhead_det.dyhead.block import NUM_GROUPS, DyHeadBlock, bring_to_coarser
from dyhead_det.dyhead.fused_passes import Combine, Moments, combine
from dyhead_det.dyhead.pyramid_layout import PyramidLayout, PyramidLayoutCache
from dyhead_det.ops.gather.deform_conv import (
    FeatureConv,
    exact_dtype,
    features_of_maps,
    locations_last,
    product_dtype,
)
from dyhead_det.ops.gather.recompute import recomputed


def attend_fast(
    blocks: Iterable[nn.Module],
    levels: list[Tensor],
    layouts: PyramidLayoutCache,
    convolve: FeatureConv,
) -> list[Tensor]:
    """Apply a stack of `DyHeadBlock` to a pyramid; maps in and out as in `DyHead.forward`.

    Under autocast the features and the products are in the autocast type; coordinates, statistics
    and attentions are in float32.
    """
    device, dtype = levels[0].device, levels[0].dtype
    features_dtype = product_dtype(levels[0])
    sizes_hw = tuple((x.shape[2], x.shape[3]) for x in levels)
    layout = layouts.layout(len(levels[0]), sizes_hw, device, exact_dtype(features_dtype))
    with torch.autocast(device.type, enabled=False):
        features = torch.cat([features_of_maps(x.to(features_dtype)) for x in levels])
        saving: AbstractContextManager[None] = nullcontext()
        for block in cast(Iterable[DyHeadBlock], blocks):
            with saving:
                convolved = _convolve(block, features, layout, convolve)
            del features  # before others of that size are made
            arguments = _normalize_and_weigh(block, convolved, layout)
            features = Combine.apply(*arguments, layout)
            if features.requires_grad:
                # To combine again takes a fiftieth of a block's time.
                convolved, gains, shifts, pieces = (each.detach() for each in arguments)
                again = partial(combine, convolved, gains, shifts, pieces, layout)
                saving = recomputed(features, again)
            del convolved, arguments
        return [x.to(dtype) for x in layout.maps(features)]


def _convolve(
    block: DyHeadBlock, features: Tensor, layout: PyramidLayout, convolve: FeatureConv
) -> Tensor:
    """Compute what all levels see of themselves and their neighbors, (P, C), from (N, C)."""
    convs = (block.same, block.finer, block.coarser)
    return convolve(
        features,
        _offsets_and_masks(block, features, layout),
        [conv.weight for conv in convs],
        [conv.bias for conv in convs],
        layout.grid,
        layout.num_locations,
    )


def _offsets_and_masks(block: DyHeadBlock, features: Tensor, layout: PyramidLayout) -> Tensor:
    """Return those of all locations of the layout, (27, P)."""
    conv = block.offset_and_mask
    weight, bias = (each.to(features.dtype) for each in conv.parameters())
    own, for_coarser = [], []
    for level, maps in enumerate(layout.maps(features)):
        # Coordinates need all the digits of float32.
        convolved = F.conv2d(maps, weight, bias, padding=1).to(layout.averaging.dtype)
        own.append(locations_last(convolved))
        if level + 1 < len(layout.sizes_hw):
            coarse_hw = layout.sizes_hw[level + 1]
            coarse = bring_to_coarser(convolved, coarse_hw, rule=block.coarse_offsets)
            for_coarser.append(locations_last(coarse))
    offsets_and_masks = torch.cat([*own, *own[1:], *for_coarser], dim=1)
    offsets_and_masks[18:].sigmoid_()
    return offsets_and_masks


def _normalize_and_weigh(
    block: DyHeadBlock, convolved: Tensor, layout: PyramidLayout
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Find the arguments of `combine` from what is convolved, (P, C)."""
    convolved, mean, variance, mean_as_seen = Moments.apply(convolved, layout)
    return convolved, *_coefficients(block, mean, variance, mean_as_seen, layout)


def _coefficients(
    block: DyHeadBlock, mean: Tensor, variance: Tensor, mean_as_seen: Tensor, layout: PyramidLayout
) -> tuple[Tensor, Tensor, Tensor]:
    """Find what multiplies each candidate, what is added, and the two pieces of the maximum.

    Args:
        block: whose parameters.
        mean: of the candidates, (S, B, C).
        variance: of the candidates, (S, B, C).
        mean_as_seen: of the candidates once they are upsampled, (S, B, C).
        layout: the pyramid's.

    Returns:
        The gains (S, B, C) and the shifts (L, B, C), so that m = sum of gain * candidate + shift
        over the candidates of a level; slope_1, shift_1, slope_2, shift_2, (4, L, B, C).
    """
    gain, shift = _group_norms(block, mean, variance, layout.kinds)
    pooled = gain * mean_as_seen + shift
    parameter_dtype = block.scale.score.weight.dtype
    gate = block.scale.gates(pooled.to(parameter_dtype))

    def average(x: Tensor) -> Tensor:
        """Average over the candidates of each level: (S, B, C) to (L, B, C)."""
        averaged: Tensor = torch.tensordot(layout.averaging, x, dims=1)
        return averaged

    pieces = torch.stack(block.task.coefficients(average(gate * pooled).to(parameter_dtype)))
    gains = gate * gain * layout.share
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
