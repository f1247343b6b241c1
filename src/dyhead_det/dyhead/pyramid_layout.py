"""Pyramid layout: where the features of all levels lie in one matrix, and what each level samples.

All levels lie channels-last one after the other, fine to coarse, so that one gathered convolution
(see `ops/gather/deform_conv.py`) serves all of them. The levels 1..L-1, which have a finer
neighbor, are the matrix without its first level; so are the grids on which the levels 0..L-2 see
their coarser neighbor.

What a level sees of itself, of the finer and of the coarser level are its candidates; S is the
number of candidates of all levels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from dyhead_det.ops.gather.sampling_grid import (
    SamplingGrid,
    build_sampling_grid,
    concatenate_grids,
)

Size = tuple[int, int]
T = TypeVar("T")


@dataclass(frozen=True)
class PyramidLayout:
    """How the features of B pyramids lie: by level, image, row and column; and what samples what.

    Every constant that a block needs is here, on the features' device, so that a block copies
    nothing from the host.

    Attributes:
        batch: B.
        sizes_hw: height and width of each level, fine to coarse.
        grid: the sampling grids of the levels 0..L-1 on the level itself (same), of the levels
            1..L-1 on the next finer level (finer), and of the levels 1..L-1 on the level itself,
            which is where their finer neighbors look (coarser).
        num_locations: how many of the P locations are same, finer and coarser.
        kinds: the candidates of level 0, then of level 1 and so on: 0 same, 1 finer, 2 coarser;
            (S,).
        candidates_of: which of the S are those of each level.
        upsampled: of the levels 0..L-2, which of the S is upsampled from the coarser level.
        upsampled_mean: of the levels 0..L-2, the weights (1, h * w) that the pixels of the coarser
            level have in the mean of the upsampled map.
        is_upsampled: whether a candidate is one of these, (S, 1, 1).
        num_pixels: of each candidate before it is upsampled, (S, 1, 1).
        averaging: one over the number of a level's candidates where the candidate is the level's,
            (L, S).
        share: of a candidate in its level's average, (S, 1, 1).
    """

    batch: int
    sizes_hw: tuple[Size, ...]
    grid: SamplingGrid
    num_locations: list[int]
    kinds: Tensor
    candidates_of: list[slice]
    upsampled: list[int]
    upsampled_mean: list[Tensor]
    is_upsampled: Tensor
    num_pixels: Tensor
    averaging: Tensor
    share: Tensor

    def candidates(self, convolved: Tensor) -> list[Tensor]:
        """Cut what is convolved at the locations, (P, C), into the candidates of all levels.

        Returns:
            S views (B, H * W, C); a candidate from the coarser level has that level's size.
        """
        levels = range(len(self.sizes_hw))
        seen = self._cut(convolved, [*levels, *levels[1:], *levels[1:]])
        first_finer, first_coarser = len(levels), 2 * len(levels) - 1
        per_level = by_level(
            seen[:first_finer], seen[first_finer:first_coarser], seen[first_coarser:]
        )
        return list(chain.from_iterable(per_level))

    def levels(self, features: Tensor) -> list[Tensor]:
        """Return views (B, H_l * W_l, C) of the features of all levels."""
        return self._cut(features, range(len(self.sizes_hw)))

    def maps(self, features: Tensor) -> list[Tensor]:
        """Return the maps (B, C, H_l, W_l) of all levels, channels-last views of the features."""
        levels = self.levels(features)
        return [as_maps(each, size_hw) for each, size_hw in zip(levels, self.sizes_hw, strict=True)]

    def _cut(self, features: Tensor, levels: Sequence[int]) -> list[Tensor]:
        """Cut features that belong to levels, one after the other, into views (B, H_l * W_l, C)."""
        sizes = [math.prod(self.sizes_hw[level]) for level in levels]
        cut = torch.split(features, [self.batch * size for size in sizes])
        return [
            each.view(self.batch, size, features.shape[1])
            for each, size in zip(cut, sizes, strict=True)
        ]


class PyramidLayoutCache:
    """The layout of the last pyramid: batches of one size follow each other, and layouts are large.

    It belongs to a module without being part of its state: copies and pickles of it are empty.
    """

    def __init__(self) -> None:
        self._latest: tuple[object, PyramidLayout] | None = None

    def __reduce__(self) -> tuple[type["PyramidLayoutCache"], tuple[()]]:
        return PyramidLayoutCache, ()

    def layout(
        self, batch: int, sizes_hw: tuple[Size, ...], device: torch.device, dtype: torch.dtype
    ) -> PyramidLayout:
        """Return the layout, see `build_layout`; the same one while nothing changes."""
        key = (batch, sizes_hw, device, dtype)
        latest = self._latest
        if latest is not None and latest[0] == key:
            return latest[1]
        layout = build_layout(batch, sizes_hw, device, dtype)
        self._latest = key, layout
        return layout


@torch.inference_mode(mode=False)  # otherwise a layout of an inference could not serve training
def build_layout(
    batch: int, sizes_hw: tuple[Size, ...], device: torch.device, dtype: torch.dtype
) -> PyramidLayout:
    """Lay out B pyramids; ``dtype`` is that of the statistics."""
    num_pixels = [math.prod(size_hw) for size_hw in sizes_hw]
    num_features = [batch * number for number in num_pixels]

    def grid(level: int, source: int) -> SamplingGrid:
        return build_sampling_grid(
            batch,
            sizes_hw[level],
            source_start=sum(num_features[:source]),
            source_hw=sizes_hw[source],
            stride=1 if source == level else 2,
            device=device,
        )

    levels = range(len(sizes_hw))
    same = [grid(level, level) for level in levels]
    finer = [grid(level, level - 1) for level in levels[1:]]
    kinds = by_level([0] * len(same), [1] * len(finer), [2] * len(finer))
    flat_kinds = list(chain.from_iterable(kinds))
    ends = list(accumulate(map(len, kinds)))
    level_of_candidate = [level for level, here in enumerate(kinds) for _ in here]
    belongs = F.one_hot(torch.tensor(level_of_candidate)).t().double()  # (L, S)
    averaging = belongs / belongs.sum(dim=1, keepdim=True)
    pixels_of_candidate = chain.from_iterable(by_level(num_pixels, num_pixels[1:], num_pixels[1:]))

    def per_candidate(numbers: Sequence[float] | Tensor) -> Tensor:
        return torch.as_tensor(numbers)[:, None, None].to(device, dtype)

    return PyramidLayout(
        batch=batch,
        sizes_hw=sizes_hw,
        grid=concatenate_grids([*same, *finer, *same[1:]]),
        num_locations=[sum(num_features), sum(num_features[1:]), sum(num_features[1:])],
        kinds=torch.tensor(flat_kinds, device=device),
        candidates_of=[slice(end - len(here), end) for end, here in zip(ends, kinds, strict=True)],
        upsampled=[end - 1 for end in ends[:-1]],
        upsampled_mean=[
            _upsampled_mean_weights(coarse_hw, fine_hw).to(device, dtype)
            for fine_hw, coarse_hw in pairwise(sizes_hw)
        ],
        is_upsampled=per_candidate([kind == 2 for kind in flat_kinds]).bool(),
        num_pixels=per_candidate(list(pixels_of_candidate)),
        averaging=averaging.to(device, dtype),
        share=per_candidate(averaging.sum(dim=0)),
    )


def _upsampled_mean_weights(coarse_hw: Size, fine_hw: Size) -> Tensor:
    """Return the weight (1, h * w) of each coarse pixel in the mean of the upsampled map."""
    of_lines = []
    for coarse, fine in zip(coarse_hw, fine_hw, strict=True):
        unit = torch.eye(coarse, dtype=torch.float64)[None]
        line = F.interpolate(unit, size=fine, mode="linear", align_corners=True)
        of_lines.append(line[0].mean(dim=1))
    return torch.outer(*of_lines).view(1, -1)


def by_level(same: Sequence[T], finer: Sequence[T], coarser: Sequence[T]) -> list[list[T]]:
    """Group per level what there is for the levels 0..L-1, 1..L-1 and 0..L-2."""
    return [
        [own, *finer[max(level - 1, 0) : level], *coarser[level : level + 1]]
        for level, own in enumerate(same)
    ]


def as_maps(features: Tensor, size_hw: Size) -> Tensor:
    """View (B, H * W, C) as channels-last maps (B, C, H, W)."""
    return features.view(len(features), *size_hw, features.shape[2]).permute(0, 3, 1, 2)
