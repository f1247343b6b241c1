"""Sampling locations and bilinear weights of deformable convolutions.

A tap samples its feature map between the pixels: four neighboring features, weighed bilinearly and
by the tap's mask. Outside its borders a map is zero (`ops/deform_conv.py`); neighbors there weigh
nothing, and their index is that of some feature inside.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dyhead_det.ops.gather.context import Context
from dyhead_det.ops.gather.parallel import in_parallel, slices

CPU_CHUNK_LOCATIONS = 2**13
"""How many output locations a thread works on at a time."""


@dataclass(frozen=True)
class SamplingGrid:
    """For P output locations: which feature map each samples, and where its nine taps lie in it.

    The maps lie one after the other in a matrix of features (R, C), one row a pixel.

    Attributes:
        map_start: row of the features where the location's map begins, (P,) int32.
        map_hw: height and width of that map, (2, 1, P) float32.
        tap_yx: sampling locations before the offsets, in pixels of the map, (2, 9, P) float32.
        num_locations: how many of the locations, in order, sample each map; known to the host.
        map_rows: the rows that each of these maps takes.
    """

    map_start: Tensor
    map_hw: Tensor
    tap_yx: Tensor
    num_locations: tuple[int, ...]
    map_rows: tuple[slice, ...]

    def __len__(self) -> int:
        return len(self.map_start)

    def __getitem__(self, chunk: slice) -> "SamplingGrid":
        begin, end, _ = chunk.indices(len(self))
        maps = self._maps_of(chunk)
        bounds = [min(max(bound, begin), end) for bound in self._bounds[maps.start : maps.stop + 1]]
        return SamplingGrid(
            self.map_start[chunk],
            self.map_hw[..., chunk],
            self.tap_yx[..., chunk],
            tuple(high - low for low, high in pairwise(bounds)),
            self.map_rows[maps],
        )

    def rows_read(self, chunk: slice) -> slice:
        """Return the range of features outside which a chunk never reads, whatever its offsets."""
        maps = self.map_rows[self._maps_of(chunk)]
        if not maps:
            return slice(0, 0)
        return slice(min(rows.start for rows in maps), max(rows.stop for rows in maps))

    def _maps_of(self, chunk: slice) -> slice:
        """Find which of the maps a chunk of the locations samples."""
        begin, end, _ = chunk.indices(len(self))
        first = max(bisect_right(self._bounds, begin) - 1, 0)
        return slice(first, max(bisect_left(self._bounds, end), first))

    @cached_property
    def _bounds(self) -> list[int]:
        return list(accumulate(self.num_locations, initial=0))


def build_sampling_grid(
    batch: int,
    out_hw: tuple[int, int],
    *,
    source_start: int,
    source_hw: tuple[int, int],
    stride: int,
    device: torch.device,
) -> SamplingGrid:
    """Lay the grid of B output maps over B source maps whose features lie one after the other.

    Nothing is copied from the host, so that a GPU is not waited for.

    Args:
        batch: B; locations are ordered by image, row and column.
        out_hw: size of the output maps.
        source_start: row of the features where the first source map begins.
        source_hw: size of the source maps.
        stride: source pixels per output location.
        device: where the features are.
    """
    num_locations, num_pixels = math.prod(out_hw), math.prod(source_hw)
    starts = source_start + num_pixels * torch.arange(batch, device=device)
    lines = [stride * torch.arange(size, device=device) for size in out_hw]
    centers = torch.stack(torch.meshgrid(*lines, indexing="ij"))  # (2, H, W)
    around = torch.arange(-1, 2, device=device)
    kernel = torch.stack(torch.meshgrid(around, around, indexing="ij"))  # (2, 3, 3)
    taps = (kernel.view(2, 9, 1) + centers.view(2, 1, num_locations)).float()
    first_rows = range(source_start, source_start + batch * num_pixels, max(1, num_pixels))
    return SamplingGrid(
        map_start=starts.int().repeat_interleave(num_locations),
        map_hw=torch.stack([taps.new_full((1, batch * num_locations), n) for n in source_hw]),
        tap_yx=taps.repeat(1, 1, batch),
        num_locations=(num_locations,) * batch,
        map_rows=tuple(slice(first, first + num_pixels) for first in first_rows),
    )


def concatenate_grids(grids: Sequence[SamplingGrid]) -> SamplingGrid:
    """Join grids that sample the same matrix of features."""
    return SamplingGrid(
        map_start=torch.cat([grid.map_start for grid in grids]),
        map_hw=torch.cat([grid.map_hw for grid in grids], dim=2),
        tap_yx=torch.cat([grid.tap_yx for grid in grids], dim=2),
        num_locations=tuple(number for grid in grids for number in grid.num_locations),
        map_rows=tuple(rows for grid in grids for rows in grid.map_rows),
    )


def bilinear_neighbors(
    offsets_and_masks: Tensor, grid: SamplingGrid, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Find the four features around each tap's sampling location, and their weights.

    Args:
        offsets_and_masks: (27, P), see `gather_conv`.
        grid: P output locations.
        dtype: of the weights returned.

    Returns:
        Rows of the features, int32, and bilinear weights times masks, both (P, 9, 4). The weights
        follow offsets and masks differentiably; at a whole coordinate the derivative is the one to
        the right.
    """
    index, weights = _BilinearNeighbors.apply(offsets_and_masks, grid)
    return index, weights.to(dtype)


class _BilinearNeighbors(torch.autograd.Function):
    """The weight of a neighbor is a factor for its line, one for its column, and the mask.

    Locations come last until the end: long inner loops, several times faster here.
    """

    @staticmethod
    def forward(
        ctx: Context, offsets_and_masks: Tensor, grid: SamplingGrid
    ) -> tuple[Tensor, Tensor]:
        ctx.grid = grid
        ctx.save_for_backward(offsets_and_masks)
        index = grid.map_start.new_empty(len(grid), 9, 4)
        weights = offsets_and_masks.new_empty(index.shape)

        def find(chunk: slice) -> None:
            index[chunk], weights[chunk] = map(
                _locations_first, _neighbors(offsets_and_masks[:, chunk], grid[chunk])
            )

        list(in_parallel(find, _chunks(grid), offsets_and_masks))
        ctx.mark_non_differentiable(index)
        return index, weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, _: None, grad: Tensor) -> tuple[Tensor, None]:
        (offsets_and_masks,) = ctx.saved_tensors
        grad_offsets_and_masks = torch.empty_like(offsets_and_masks)

        def differentiate(chunk: slice) -> None:
            of_neighbors = grad[chunk].flatten(1).t().view(9, 4, -1).unbind(1)
            grad_offsets_and_masks[:, chunk] = _grad_of_offsets_and_masks(
                offsets_and_masks[:, chunk], ctx.grid[chunk], of_neighbors
            )

        list(in_parallel(differentiate, _chunks(ctx.grid), offsets_and_masks))
        return grad_offsets_and_masks, None


def _chunks(grid: SamplingGrid) -> list[slice]:
    size = CPU_CHUNK_LOCATIONS if grid.map_start.device.type == "cpu" else len(grid)
    return list(slices(0, len(grid), size))


def _neighbors(offsets_and_masks: Tensor, grid: SamplingGrid) -> tuple[Tensor, Tensor]:
    """Return rows of the features and weights, both (9, 4, P)."""
    low, low_factors, high_factors, _ = _lines(offsets_and_masks, grid)
    (low_y, low_x), (high_y, high_x) = low_factors, high_factors
    masks = offsets_and_masks[18:]
    low_y, high_y = low_y * masks, high_y * masks
    weights = (low_y * low_x, low_y * high_x, high_y * low_x, high_y * high_x)
    top, left = low.clamp(min=0)
    bottom, right = (low + 1).minimum(grid.map_hw - 1)
    # Exact in float32 for maps of up to 2^24 pixels.
    top, bottom = top * grid.map_hw[1], bottom * grid.map_hw[1]
    pixels = (top + left, top + right, bottom + left, bottom + right)
    return torch.stack(pixels, dim=1).int() + grid.map_start, torch.stack(weights, dim=1)


def _grad_of_offsets_and_masks(
    offsets_and_masks: Tensor, grid: SamplingGrid, of_neighbors: Sequence[Tensor]
) -> Tensor:
    """Turn the gradients (9, P) of the four neighbors' weights into that of (27, P)."""
    low, low_factors, high_factors, is_inside = _lines(offsets_and_masks, grid)
    (low_y, low_x), (high_y, high_x) = low_factors, high_factors
    top_left, top_right, bottom_left, bottom_right = of_neighbors
    # By the factors, but for the mask.
    top = top_left * low_x + top_right * high_x
    bottom = bottom_left * low_x + bottom_right * high_x
    left = top_left * low_y + bottom_left * high_y
    right = top_right * low_y + bottom_right * high_y
    low_in_map, high_in_map = _in_map(low, grid)
    of_offsets = torch.stack((bottom, right)) * high_in_map
    of_offsets -= torch.stack((top, left)) * low_in_map
    of_offsets *= offsets_and_masks[18:] * is_inside
    of_masks = top * low_y + bottom * high_y
    return torch.cat((of_offsets.transpose(0, 1).flatten(0, 1), of_masks))


def _lines(offsets_and_masks: Tensor, grid: SamplingGrid) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Find the line above each sampling location, the column to the left, and bilinear factors.

    Returns:
        Those lines and columns, whole numbers in [-1, size - 1]; their factors; the factors of the
        lines below and the columns to the right; whether the location lies inside, or half outside;
        all (2, 9, P).
    """
    location = grid.tap_yx + offsets_and_masks[:18].view(9, 2, -1).transpose(0, 1)
    is_inside = (location >= -1) & (location < grid.map_hw)
    # A location outside reads the border of zeros at -1; this also keeps every index in its map.
    location = torch.where(is_inside, location, -1)
    low = location.floor()
    beyond = location - low
    low_in_map, high_in_map = _in_map(low, grid)
    return low, (1 - beyond) * low_in_map, beyond * high_in_map, is_inside


def _in_map(low: Tensor, grid: SamplingGrid) -> tuple[Tensor, Tensor]:
    """Return 1 where a line, and where the next one, is in the map; 0 where it is of the border."""
    return (low + 1).clamp(max=1), (grid.map_hw - 1 - low).clamp(max=1)


def _locations_first(x: Tensor) -> Tensor:
    """Turn (9, 4, P) into (P, 9, 4), in memory too."""
    return x.flatten(0, 1).t().contiguous().view(-1, 9, 4)
