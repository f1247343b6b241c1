"""A whole pyramid as one table of rows, and which grid of places reads which level of it.

All levels stand channels-last one after the other, fine to coarse, so that one gathered convolution
(see `ops/gather/deform_conv.py`) serves all of them. The levels 1..L-1, which have a finer
neighbor, are the table without its first level; so are the grids on which the levels 0..L-2 see
their coarser neighbor.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain, pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from dyhead_det.ops.gather.sampling_grid import Places, concatenate_places, places_of_maps

Size = tuple[int, int]
T = TypeVar("T")


@dataclass(frozen=True)
class Table:
    """How the rows of a pyramid lie: by level, image, row and column; and what reads what.

    places: the grids of the levels 0..L-1 on the level itself (same), of the levels 1..L-1 on the
        next finer level (finer), and of the levels 1..L-1 on the level itself, which is where their
        finer neighbors look (coarser); ``num_places`` says how many of each.
    kinds: the candidates of level 0, then of level 1 and so on: 0 same, 1 finer, 2 coarser; (S,).
    candidates_of: which of the S are those of each level.
    upsampled_mean: for each of the S that comes from a coarser level, the weights (1, h * w) of the
        pixels in the mean of the map that is upsampled to its own level.
    mix: (L, S), one over the number of a level's candidates where the candidate is the level's.
    """

    batch: int
    sizes_hw: tuple[Size, ...]
    places: Places
    num_places: list[int]
    kinds: Tensor
    candidates_of: list[slice]
    upsampled_mean: dict[int, Tensor]
    mix: Tensor

    def candidates(self, convolved: Tensor) -> list[Tensor]:
        """Cut what the places see, (P, C), into the candidates of all levels.

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

    def levels(self, rows: Tensor) -> list[Tensor]:
        """Return views (B, H_l * W_l, C) of the rows of all levels."""
        return self._cut(rows, range(len(self.sizes_hw)))

    def maps(self, rows: Tensor) -> list[Tensor]:
        """Return the maps (B, C, H_l, W_l) of all levels, channels-last views of the rows."""
        parts = self.levels(rows)
        return [as_maps(part, size_hw) for part, size_hw in zip(parts, self.sizes_hw, strict=True)]

    def _cut(self, rows: Tensor, levels: Sequence[int]) -> list[Tensor]:
        """Cut rows that belong to levels, one after the other, into views (B, H_l * W_l, C)."""
        sizes = [math.prod(self.sizes_hw[level]) for level in levels]
        parts = torch.split(rows, [self.batch * size for size in sizes])
        return [
            part.view(self.batch, size, rows.shape[1])
            for part, size in zip(parts, sizes, strict=True)
        ]


@lru_cache(maxsize=1)  # one batch after the other has the same sizes; large, so no more than one
@torch.inference_mode(mode=False)  # otherwise a table of an inference could not serve training
def build_table(
    batch: int, sizes_hw: tuple[Size, ...], device: torch.device, dtype: torch.dtype
) -> Table:
    """Lay out B pyramids; ``dtype`` is that of the statistics."""
    num_rows = [batch * math.prod(size_hw) for size_hw in sizes_hw]

    def grid(level: int, source: int) -> Places:
        return places_of_maps(
            batch,
            sizes_hw[level],
            source_start=sum(num_rows[:source]),
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
    return Table(
        batch=batch,
        sizes_hw=sizes_hw,
        places=concatenate_places([*same, *finer, *same[1:]]),
        num_places=[sum(num_rows), sum(num_rows[1:]), sum(num_rows[1:])],
        kinds=torch.tensor(flat_kinds, device=device),
        candidates_of=[slice(end - len(here), end) for end, here in zip(ends, kinds, strict=True)],
        upsampled_mean={
            end - 1: _upsampled_mean_weights(coarse_hw, fine_hw).to(device, dtype)
            for end, (fine_hw, coarse_hw) in zip(ends, pairwise(sizes_hw), strict=False)
        },
        mix=(belongs / belongs.sum(dim=1, keepdim=True)).to(device, dtype),
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


def as_maps(rows: Tensor, size_hw: Size) -> Tensor:
    """View (B, H * W, C) as channels-last maps (B, C, H, W)."""
    return rows.view(len(rows), *size_hw, rows.shape[2]).permute(0, 3, 1, 2)
