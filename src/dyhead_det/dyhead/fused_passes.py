"""What is done with every number of the candidates: their moments, and their combination.

Both go through the candidates of all levels (see `pyramid_table.py`) in parts that fit the cache,
several at a time (see `parallel.py`), and keep nothing for backward but what they were given.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from dyhead_det.dyhead.block import resize
from dyhead_det.dyhead.pyramid_table import Table, as_maps
from dyhead_det.ops.gather.context import Context
from dyhead_det.ops.gather.deform_conv import exact_dtype, rows_of_maps
from dyhead_det.ops.gather.parallel import in_parallel, slices

CPU_PART_NUMBERS = 2**17
GPU_PART_NUMBERS = 2**26

Part = tuple[int, slice]
"""Which of several maps (B, H * W, C), and which of its places."""


class Moments(torch.autograd.Function):
    """Mean and variance of the candidates over their places.

    What was convolved is handed on for `Combine` to take. So its gradient comes by here, and what
    the moments add to it is added in place.
    """

    @staticmethod
    def forward(
        ctx: Context, convolved: Tensor, table: Table
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Measure S candidates.

        Args:
            ctx: what backward needs.
            convolved: what the table's places see, (P, C).
            table: the pyramid.

        Returns:
            ``convolved``, then three times (S, B, C), at least in float32: the means, the variances
            and the means of the candidates as their level sees them, upsampled.
        """
        ctx.table = table
        candidates = table.candidates(convolved)
        dtype = exact_dtype(convolved.dtype)

        def measure(part: Part) -> tuple[Tensor, Tensor]:
            s, places = part
            numbers = candidates[s][:, places].to(dtype)
            mean = numbers.mean(dim=1)
            # Centered before it is squared: a difference of mean squares would cancel.
            return mean, (numbers - mean[:, None]).square_().mean(dim=1)

        parts = _parts(candidates)
        moments = zip(*in_parallel(measure, parts, convolved), strict=True)
        part_mean, part_variance = map(torch.stack, moments)  # (number of parts, B, C)
        of_candidate = torch.tensor([s for s, _ in parts], device=convolved.device)
        shares = [(part.stop - part.start) / candidates[s].shape[1] for s, part in parts]
        share = F.one_hot(of_candidate, len(candidates)).t() * part_mean.new_tensor(shares)
        mean = torch.tensordot(share, part_mean, dims=1)
        # Within the parts plus between the parts.
        spread = part_variance + (part_mean - mean[of_candidate]).square()
        variance = torch.tensordot(share, spread, dims=1)
        seen = list(mean.unbind())
        for s, weights in table.upsampled_mean.items():
            seen[s] = (weights @ candidates[s].to(dtype))[:, 0]
        ctx.save_for_backward(convolved, mean)
        return convolved, mean, variance, torch.stack(seen)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Context, grad: Tensor, grad_mean: Tensor, grad_variance: Tensor, grad_seen: Tensor
    ) -> tuple[Tensor, None]:
        """Return the gradient of what was convolved."""
        convolved, mean = ctx.saved_tensors
        candidates, grads = ctx.table.candidates(convolved), ctx.table.candidates(grad)
        upsampled_mean = ctx.table.upsampled_mean
        count = mean.new_tensor([maps.shape[1] for maps in candidates])[:, None, None]
        seen_as_is = grad_seen.clone()
        seen_as_is[list(upsampled_mean)] = 0
        # (grad_mean + 2 grad_variance (candidate - mean)) / number of places
        slope = 2 * grad_variance / count
        constant = (grad_mean + seen_as_is) / count - slope * mean

        def add(part: Part) -> None:
            s, places = part
            numbers = candidates[s][:, places].to(mean.dtype)
            change = torch.addcmul(constant[s, :, None], numbers, slope[s, :, None])
            if s in upsampled_mean:
                change.addcmul_(upsampled_mean[s][:, places, None], grad_seen[s, :, None])
            grads[s][:, places] += change

        list(in_parallel(add, _parts(candidates), grad))
        return grad, None


def combine(
    convolved: Tensor, gains: Tensor, shifts: Tensor, pieces: Tensor, table: Table
) -> Tensor:
    """Take the maximum of two pieces of the weighed sum of each level's candidates.

    Args:
        convolved: what the table's places see, (P, C).
        gains: what multiplies each candidate, (S, B, C).
        shifts: what is added for each level, (L, B, C).
        pieces: slope and shift of the first piece, then of the second, (4, L, B, C).
        table: the pyramid.

    Returns:
        Rows (N, C) of the table, in the type of ``convolved``.
    """
    rows = convolved.new_empty(table.num_places[0], convolved.shape[1])
    levels = table.levels(rows)
    candidates = table.candidates(convolved)
    for s, (_, upsampled) in _upsampled(candidates, table, shifts.dtype).items():
        candidates[s] = upsampled

    def combine_part(part: Part) -> None:
        level, places = part
        ks = table.candidates_of[level]
        fused = _weighed_sum(shifts[level], gains, candidates, ks, places)
        slope_1, shift_1, slope_2, shift_2 = pieces[:, level, :, None]
        first = torch.addcmul(shift_1, fused, slope_1)
        levels[level][:, places] = first.maximum(torch.addcmul(shift_2, fused, slope_2))

    list(in_parallel(combine_part, _parts(levels), rows))
    return rows


class Combine(torch.autograd.Function):
    """The maximum of two pieces of the weighed sum of a level's candidates, in one pass.

    Saves its arguments only and sums again in backward.
    """

    @staticmethod
    def forward(
        ctx: Context, convolved: Tensor, gains: Tensor, shifts: Tensor, pieces: Tensor, table: Table
    ) -> Tensor:
        """See `combine`."""
        ctx.table = table
        ctx.save_for_backward(convolved, gains, shifts, pieces)
        return combine(convolved, gains, shifts, pieces, table)

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of what was convolved, of the gains, the shifts and the pieces."""
        table = ctx.table
        convolved, gains, shifts, pieces = (each.detach() for each in ctx.saved_tensors)
        candidates = table.candidates(convolved)
        grad_convolved = torch.empty_like(convolved)
        cut = table.candidates(grad_convolved)
        grad_candidates = list(cut)
        with torch.enable_grad():
            upsampling = _upsampled(candidates, table, shifts.dtype)
        for s, (_, upsampled) in upsampling.items():
            candidates[s] = upsampled.detach()
            grad_candidates[s] = torch.empty_like(upsampled)
        grads = table.levels(grad.contiguous())

        def differentiate(part: Part) -> tuple[Tensor, Tensor]:
            level, places = part
            ks = table.candidates_of[level]
            grad_here = grads[level][:, places]
            fused = _weighed_sum(shifts[level], gains, candidates, ks, places)
            slope_1, shift_1, slope_2, shift_2 = pieces[:, level, :, None]
            lead = torch.addcmul(shift_1 - shift_2, fused, slope_1 - slope_2)
            # 1 where the first is larger, 0 where the second is, and a half of both in between.
            share = lead.sign_().add_(1).mul_(0.5)
            grad_first = share * grad_here
            grad_second = grad_here - grad_first
            grad_pieces = [
                (grad_first * fused).sum(dim=1),
                grad_first.sum(dim=1),
                (grad_second * fused).sum(dim=1),
                grad_second.sum(dim=1),
            ]
            grad_fused = torch.addcmul(grad_first * slope_1, grad_second, slope_2)
            grad_gains = []
            for s in range(ks.start, ks.stop):
                torch.mul(grad_fused, gains[s, :, None], out=grad_candidates[s][:, places])
                grad_gains.append((grad_fused * candidates[s][:, places]).sum(dim=1))
            return torch.stack(grad_pieces), torch.stack(grad_gains)

        grad_pieces, grad_gains = torch.zeros_like(pieces), torch.zeros_like(gains)
        parts = _parts(grads)
        for (level, _), (of_pieces, of_gains) in zip(
            parts, in_parallel(differentiate, parts, grad), strict=True
        ):
            grad_pieces[:, level] += of_pieces
            grad_gains[table.candidates_of[level]] += of_gains
        for s, (coarse, upsampled) in upsampling.items():
            (grad_coarse,) = torch.autograd.grad(upsampled, coarse, grad_candidates[s])
            cut[s].copy_(grad_coarse)
        grad_shifts = grad_pieces[1] * pieces[0] + grad_pieces[3] * pieces[2]
        return grad_convolved, grad_gains, grad_shifts, grad_pieces, None


@torch.no_grad()
def combine_again(ctx: Context) -> Tensor:
    """Compute a result of `Combine` again, from what it saved: its ``grad_fn``."""
    convolved, gains, shifts, pieces = ctx.saved_tensors
    return combine(convolved, gains, shifts, pieces, ctx.table)


def _upsampled(
    candidates: Sequence[Tensor], table: Table, dtype: torch.dtype
) -> dict[int, tuple[Tensor, Tensor]]:
    """Return those candidates that are from coarser levels, and the same upsampled."""
    found = {}
    for level, s in enumerate(table.upsampled_mean):
        coarse = candidates[s].to(dtype).detach().requires_grad_(torch.is_grad_enabled())
        size_hw = table.sizes_hw[level]
        maps = resize(as_maps(coarse, table.sizes_hw[level + 1]), size_hw)
        found[s] = coarse, rows_of_maps(maps).view(len(coarse), math.prod(size_hw), maps.shape[1])
    return found


def _weighed_sum(
    shift: Tensor, gains: Tensor, candidates: Sequence[Tensor], ks: slice, places: slice
) -> Tensor:
    total = shift[:, None]
    for gain, maps in zip(gains[ks], candidates[ks], strict=True):
        total = torch.addcmul(total, maps[:, places].to(shift.dtype), gain[:, None])
    return total


def _parts(maps: Sequence[Tensor]) -> list[Part]:
    """Cut maps (B, H * W, C) into parts that stay in the cache (CPU) or fill the device (GPU)."""
    numbers = CPU_PART_NUMBERS if maps[0].device.type == "cpu" else GPU_PART_NUMBERS
    return [
        (k, places)
        for k, each in enumerate(maps)
        for places in slices(0, each.shape[1], numbers // max(1, len(each) * each.shape[2]))
    ]
