"""Fused elementwise passes: GroupNorm statistics, then scale and task attention.

Both go through the candidates of all levels (see `pyramid_layout.py`) in chunks that fit the cache,
several at a time (see `parallel.py`), and keep nothing for backward but what they were given.
"""

import math
from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dyhead_det.dyhead.block import resize
from dyhead_det.dyhead.pyramid_layout import PyramidLayout, as_maps
from dyhead_det.ops.gather.context import Context
from dyhead_det.ops.gather.deform_conv import exact_dtype, features_of_maps
from dyhead_det.ops.gather.parallel import in_parallel, slices

CPU_CHUNK_NUMBERS = 2**17
GPU_CHUNK_NUMBERS = 2**26

Chunk = tuple[int, slice]
"""Which of several maps (B, H * W, C), and which of its pixels."""


class Moments(torch.autograd.Function):
    """Mean and variance of the candidates over their pixels.

    The convolved features pass through, for `Combine` to take. So their gradient comes by here, and
    the one pass that adds to it what the moments contribute is the only one: summed up by autograd,
    it would take three.
    """

    @staticmethod
    def forward(
        ctx: Context, convolved: Tensor, layout: PyramidLayout
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Measure S candidates.

        Args:
            ctx: what backward needs.
            convolved: at all locations of the layout, (P, C).
            layout: the pyramid's.

        Returns:
            ``convolved``, then three times (S, B, C), at least in float32: the means, the variances
            and the means of the candidates as their level sees them, upsampled.
        """
        ctx.layout = layout
        candidates = layout.candidates(convolved)
        dtype = exact_dtype(convolved.dtype)

        def measure(chunk: Chunk) -> tuple[Tensor, Tensor]:
            s, pixels = chunk
            numbers = candidates[s][:, pixels].to(dtype)
            mean = numbers.mean(dim=1)
            # Centered before it is squared: a difference of mean squares would cancel.
            return mean, (numbers - mean[:, None]).square_().mean(dim=1)

        chunks = _chunks(candidates)
        measured = zip(chunks, in_parallel(measure, chunks, convolved), strict=True)
        moments = [
            _pool_moments([(pixels.stop - pixels.start, *each) for (_, pixels), each in of_one])
            for _, of_one in groupby(measured, key=lambda each: each[0][0])
        ]
        mean, variance = map(torch.stack, zip(*moments, strict=True))
        mean_as_seen = list(mean.unbind())
        for s, weights in zip(layout.upsampled, layout.upsampled_mean, strict=True):
            mean_as_seen[s] = (weights @ candidates[s].to(dtype))[:, 0]
        ctx.save_for_backward(convolved, mean)
        return convolved, mean, variance, torch.stack(mean_as_seen)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Context, grad: Tensor, grad_mean: Tensor, grad_variance: Tensor, grad_seen: Tensor
    ) -> tuple[Tensor, None]:
        """Return the gradient of what was convolved."""
        convolved, mean = ctx.saved_tensors
        layout: PyramidLayout = ctx.layout
        candidates, grads = layout.candidates(convolved), layout.candidates(grad.contiguous())
        grad_convolved = torch.empty_like(convolved)
        grad_candidates = layout.candidates(grad_convolved)
        upsampled_mean = dict(zip(layout.upsampled, layout.upsampled_mean, strict=True))
        seen_as_is = grad_seen.masked_fill(layout.is_upsampled, 0)
        # (grad_mean + 2 grad_variance (candidate - mean)) / number of pixels
        slope = 2 * grad_variance / layout.num_pixels
        constant = (grad_mean + seen_as_is) / layout.num_pixels - slope * mean

        def differentiate(chunk: Chunk) -> None:
            s, pixels = chunk
            numbers = candidates[s][:, pixels].to(mean.dtype)
            change = torch.addcmul(constant[s, :, None], numbers, slope[s, :, None])
            if s in upsampled_mean:
                change.addcmul_(upsampled_mean[s][:, pixels, None], grad_seen[s, :, None])
            torch.add(grads[s][:, pixels], change, out=grad_candidates[s][:, pixels])

        list(in_parallel(differentiate, _chunks(candidates), grad))
        return grad_convolved, None


def _pool_moments(chunks: Sequence[tuple[int, Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return mean and variance of all numbers, from count, mean and variance of each chunk."""
    if len(chunks) == 1:
        return chunks[0][1:]
    total = sum(count for count, _, _ in chunks)
    mean, variance = torch.zeros_like(chunks[0][1]), torch.zeros_like(chunks[0][2])
    for count, chunk_mean, _ in chunks:
        mean.add_(chunk_mean, alpha=count / total)
    for count, chunk_mean, chunk_variance in chunks:  # within the chunks plus between the chunks
        variance.add_(chunk_variance + (chunk_mean - mean).square_(), alpha=count / total)
    return mean, variance


@torch.no_grad()
def combine(
    convolved: Tensor, gains: Tensor, shifts: Tensor, pieces: Tensor, layout: PyramidLayout
) -> Tensor:
    """Take the maximum of two pieces of the weighed sum of each level's candidates.

    Args:
        convolved: at all locations of the layout, (P, C).
        gains: what multiplies each candidate, (S, B, C).
        shifts: what is added for each level, (L, B, C).
        pieces: slope and shift of the first piece, then of the second, (4, L, B, C).
        layout: the pyramid's.

    Returns:
        Features (N, C) of the pyramid, in the type of ``convolved``.
    """
    features = convolved.new_empty(layout.num_locations[0], convolved.shape[1])
    levels = layout.levels(features)
    candidates = layout.candidates(convolved)
    for s, (_, upsampled) in _upsampled(candidates, layout, shifts.dtype).items():
        candidates[s] = upsampled

    def combine_chunk(chunk: Chunk) -> None:
        level, pixels = chunk
        ks = layout.candidates_of[level]
        fused = _weighed_sum(shifts[level], gains, candidates, ks, pixels)
        slope_1, shift_1, slope_2, shift_2 = pieces[:, level, :, None]
        first = torch.addcmul(shift_1, fused, slope_1)
        levels[level][:, pixels] = first.maximum(torch.addcmul(shift_2, fused, slope_2))

    list(in_parallel(combine_chunk, _chunks(levels), features))
    return features


class Combine(torch.autograd.Function):
    """The maximum of two pieces of the weighed sum of a level's candidates, in one pass.

    Saves its arguments only and sums again in backward.
    """

    @staticmethod
    def forward(
        ctx: Context,
        convolved: Tensor,
        gains: Tensor,
        shifts: Tensor,
        pieces: Tensor,
        layout: PyramidLayout,
    ) -> Tensor:
        """See `combine`."""
        ctx.layout = layout
        ctx.save_for_backward(convolved, gains, shifts, pieces)
        features: Tensor = combine(convolved, gains, shifts, pieces, layout)
        return features

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of what was convolved, of the gains, the shifts and the pieces."""
        layout: PyramidLayout = ctx.layout
        convolved, gains, shifts, pieces = (each.detach() for each in ctx.saved_tensors)
        candidates = layout.candidates(convolved)
        grad_convolved = torch.empty_like(convolved)
        cut = layout.candidates(grad_convolved)
        grad_candidates = list(cut)
        with torch.enable_grad():
            upsampling = _upsampled(candidates, layout, shifts.dtype)
        for s, (_, upsampled) in upsampling.items():
            candidates[s] = upsampled.detach()
            grad_candidates[s] = torch.empty_like(upsampled)
        grads = layout.levels(grad.contiguous())

        def differentiate(chunk: Chunk) -> tuple[Tensor, Tensor]:
            level, pixels = chunk
            ks = layout.candidates_of[level]
            grad_here = grads[level][:, pixels]
            fused = _weighed_sum(shifts[level], gains, candidates, ks, pixels)
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
                torch.mul(grad_fused, gains[s, :, None], out=grad_candidates[s][:, pixels])
                grad_gains.append((grad_fused * candidates[s][:, pixels]).sum(dim=1))
            return torch.stack(grad_pieces), torch.stack(grad_gains)

        grad_pieces, grad_gains = torch.zeros_like(pieces), torch.zeros_like(gains)
        chunks = _chunks(grads)
        for (level, _), (of_pieces, of_gains) in zip(
            chunks, in_parallel(differentiate, chunks, grad), strict=True
        ):
            grad_pieces[:, level] += of_pieces
            grad_gains[layout.candidates_of[level]] += of_gains
        for s, (coarse, upsampled) in upsampling.items():
            (grad_coarse,) = torch.autograd.grad(upsampled, coarse, grad_candidates[s])
            cut[s].copy_(grad_coarse)
        grad_shifts = grad_pieces[1] * pieces[0] + grad_pieces[3] * pieces[2]
        return grad_convolved, grad_gains, grad_shifts, grad_pieces, None


def _upsampled(
    candidates: Sequence[Tensor], layout: PyramidLayout, dtype: torch.dtype
) -> dict[int, tuple[Tensor, Tensor]]:
    """Return those candidates that are from coarser levels, and the same upsampled."""
    by_candidate = {}
    for level, s in enumerate(layout.upsampled):
        coarse = candidates[s].to(dtype).detach().requires_grad_(torch.is_grad_enabled())
        size_hw = layout.sizes_hw[level]
        maps = resize(as_maps(coarse, layout.sizes_hw[level + 1]), size_hw)
        upsampled = features_of_maps(maps).view(len(coarse), math.prod(size_hw), maps.shape[1])
        by_candidate[s] = coarse, upsampled
    return by_candidate


def _weighed_sum(
    shift: Tensor, gains: Tensor, candidates: Sequence[Tensor], ks: slice, pixels: slice
) -> Tensor:
    total = shift[:, None]
    for gain, maps in zip(gains[ks], candidates[ks], strict=True):
        total = torch.addcmul(total, maps[:, pixels].to(shift.dtype), gain[:, None])
    return total


def _chunks(maps: Sequence[Tensor]) -> list[Chunk]:
    """Cut maps (B, H * W, C) into chunks that stay in the cache (CPU) or fill the device (GPU)."""
    numbers = CPU_CHUNK_NUMBERS if maps[0].device.type == "cpu" else GPU_CHUNK_NUMBERS
    return [
        (k, pixels)
        for k, each in enumerate(maps)
        for pixels in slices(0, each.shape[1], numbers // max(1, len(each) * each.shape[2]))
    ]
