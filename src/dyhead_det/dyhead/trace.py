"""The readable blocks, run so that their inner numbers can be seen: where they look, what counts.

Hooks listen to the modules of `block.py` and `stacked.py` while these compute as ever; the fast
path has the same parameters and computes the same (see `fast.py`).
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from dyhead_det.dyhead.block import DyHeadBlock, split_offsets_and_masks
from dyhead_det.dyhead.head import DyHead
from dyhead_det.dyhead.stacked import StackedBlock, StackedDyHead, median_level, stack_levels
from dyhead_det.ops.deform_conv import DeformBackend, resolve_backend

T = TypeVar("T")

# What a level sees, in the order of the candidates, and the stride it is read with.
STRIDES = {"same": 1, "finer": 2, "coarser": 1}


@dataclass(frozen=True, slots=True)
class Sampling:
    """Where a deformable convolution reads a map, and how much each of its nine taps counts.

    grid: The level in whose positions it reads.
    stride: Positions of that grid from one location of the convolution to the next.
    offset: (dy, dx) of the taps, row by row, in positions, (B, 18, H, W).
    mask: (B, 9, H, W) in (0, 1).
    """

    grid: int
    stride: int
    offset: Tensor
    mask: Tensor


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a level sees of itself or of a neighbor.

    source: The level that is read.
    sampling: None without deformable convolutions.
    gate: By what scale attention multiplies it, (B,); None without scale attention.
    """

    source: int
    sampling: Sampling | None
    gate: Tensor | None


@dataclass(frozen=True, slots=True)
class LevelTrace:
    """One block on one level.

    grid: The level whose size the map has: its own, or the median one of `scheme: stacked`.
    result: The new map, (B, C, H, W).
    candidates: Itself first, then the finer and the coarser neighbor, where they are read.
    coefficients: slope_1, shift_1, slope_2 and shift_2 of the dynamic ReLU, (4, B, C); None
        without task attention.
    """

    grid: int
    result: Tensor
    candidates: tuple[Candidate, ...]
    coefficients: Tensor | None


@dataclass(frozen=True, slots=True)
class BlockTrace:
    """One block: its levels, and what the whole head would return if it were the last block."""

    levels: list[LevelTrace]
    pyramid: list[Tensor]


def trace_blocks(dyhead: DyHead | StackedDyHead, levels: list[Tensor]) -> Iterator[BlockTrace]:
    """Run a head on a pyramid block by block.

    Args:
        dyhead: In whatever mode; while a block runs nobody else should.
        levels: Its input, maps (B, C, H_l, W_l), fine to coarse.

    Yields:
        What each block computes; the pyramid of the last one is what the head returns.
    """
    attended = levels
    if isinstance(dyhead, DyHead):
        backend = resolve_backend(dyhead.deform_backend, levels[0])
        for block in dyhead.blocks:
            traced = _trace_block(cast("DyHeadBlock", block), attended, backend)
            attended = [level.result for level in traced]
            yield BlockTrace(traced, dyhead.after_blocks(levels, attended))
        return
    stacked = stack_levels(levels)
    for block in dyhead.blocks:
        traced = _trace_stacked(cast("StackedBlock", block), stacked, dyhead.deform_backend)
        stacked = torch.stack([level.result for level in traced], dim=1)
        yield BlockTrace(traced, dyhead.after_blocks(levels, stacked))


def _trace_block(
    block: DyHeadBlock, levels: list[Tensor], backend: DeformBackend
) -> list[LevelTrace]:
    with ExitStack() as hooks:
        samplings = {
            role: iter(listen(hooks, getattr(block, role, None), _offset_and_mask))
            for role in STRIDES
        }
        gates = iter(
            listen(
                hooks,
                getattr(block, "scale", None),
                lambda _fused, maps: [block.scale.gates(x.mean(dim=(2, 3)))[:, 0] for x in maps],
            )
        )
        coefficients = iter(
            listen(
                hooks,
                getattr(block, "task", None),
                lambda _new, x: torch.stack(block.task.coefficients(x.mean(dim=(2, 3)))),
            )
        )
        results = block.forward(levels, backend)  # not the module's call, which may be compiled
    reads_neighbors = not block.attention.isdisjoint(("spatial", "scale"))
    traced = []
    for level, result in enumerate(results):
        gates_of_level = iter(next(gates, []))
        candidates = [
            _candidate(role, source, next(samplings[role], None), next(gates_of_level, None))
            for role, source in zip(STRIDES, (level, level - 1, level + 1), strict=True)
            if source == level or (reads_neighbors and 0 <= source < len(levels))
        ]
        traced.append(LevelTrace(level, result, tuple(candidates), next(coefficients, None)))
    return traced


def _candidate(
    role: str, source: int, read: tuple[Tensor, Tensor] | None, gate: Tensor | None
) -> Candidate:
    sampling = None if read is None else Sampling(source, STRIDES[role], *read)
    return Candidate(source, sampling, gate)


def _trace_stacked(
    block: StackedBlock, stacked: Tensor, backend: DeformBackend
) -> list[LevelTrace]:
    scale, spatial, task = block.scale, block.spatial, block.task
    with ExitStack() as hooks:
        gates = listen(hooks, scale, lambda _new, x: scale.gates(x)[..., 0] if scale else x)
        chosen = listen(
            hooks,
            spatial and spatial.offset_and_mask,
            lambda made, _x: split_offsets_and_masks(made),
        )
        coefficients = listen(
            hooks, task, lambda _new, x: torch.stack(task.coefficients(x)) if task else x
        )
        result = block.forward(stacked, backend)
    num_levels, channels = stacked.shape[1:3]
    grid = median_level(num_levels)
    sampling = Sampling(grid, 1, *chosen[0]) if chosen else None
    traced = []
    for level, new in enumerate(result.unbind(dim=1)):
        neighbors = (level, level - 1, level + 1) if spatial is not None else (level,)
        candidates = [
            Candidate(source, sampling, gates[0][:, source] if gates else None)
            for source in neighbors
            if 0 <= source < num_levels
        ]
        of_level = coefficients[0].expand(-1, -1, channels) if coefficients else None
        traced.append(LevelTrace(grid, new, tuple(candidates), of_level))
    return traced


def listen(hooks: ExitStack, module: nn.Module | None, measure: Callable[..., T]) -> list[T]:
    """Collect `measure(output, *inputs)` of every call of a module while the hooks are open."""
    seen: list[T] = []

    def hook(_module: nn.Module, inputs: tuple[Any, ...], output: object) -> None:
        seen.append(measure(output, *inputs))

    if module is not None:
        hooks.callback(module.register_forward_hook(hook).remove)
    return seen


def _offset_and_mask(
    _seen: Tensor, _x: Tensor, offsets_and_masks: Tensor | None, _backend: str
) -> tuple[Tensor, Tensor] | None:
    """Return what a `NormedDeformConv` was called with; None where it is a plain convolution."""
    return None if offsets_and_masks is None else split_offsets_and_masks(offsets_and_masks)
