"""Where the taps of deformable convolutions read a table of rows, and how much each row weighs.

A tap reads its map between the pixels: four rows of the table, weighed bilinearly and by the tap's
mask. Outside its borders a map is zero (`deform_conv.py`); such rows weigh nothing, and stand in
for ones that are not there.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dyhead_det.ops.gather.context import Context
from dyhead_det.ops.gather.parallel import in_parallel, slices

CPU_PART_PLACES = 2**13
"""How many places a thread works on at a time."""


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
    index, weights = _Corners.apply(points, places)
    return index, weights.to(dtype)


class _Corners(torch.autograd.Function):
    """The weight of a corner is a factor for its line, one for its column, and the mask.

    Places come last until the end: long inner loops, several times faster here.
    """

    @staticmethod
    def forward(ctx: Context, points: Tensor, places: Places) -> tuple[Tensor, Tensor]:
        ctx.places = places
        ctx.save_for_backward(points)
        rows = places.start.new_empty(len(places), 9, 4)
        weights = points.new_empty(rows.shape)

        def find(part: slice) -> None:
            rows[part], weights[part] = map(
                _places_first, _corners_of_lines(points[:, part], places[part])
            )

        list(in_parallel(find, _parts(places), points))
        ctx.mark_non_differentiable(rows)
        return rows, weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, _: None, grad: Tensor) -> tuple[Tensor, None]:
        (points,) = ctx.saved_tensors
        grad_points = torch.empty_like(points)

        def differentiate(part: slice) -> None:
            of_corners = grad[part].flatten(1).t().view(9, 4, -1).unbind(1)
            grad_points[:, part] = _grad_of_points(points[:, part], ctx.places[part], of_corners)

        list(in_parallel(differentiate, _parts(ctx.places), points))
        return grad_points, None


def _parts(places: Places) -> list[slice]:
    size = CPU_PART_PLACES if places.start.device.type == "cpu" else len(places)
    return list(slices(0, len(places), size))


def _corners_of_lines(points: Tensor, places: Places) -> tuple[Tensor, Tensor]:
    """Return rows of the table and weights, both (9, 4, P)."""
    low, lower, higher, _ = _lines(points, places)
    (low_y, low_x), (high_y, high_x) = lower, higher
    low_y, high_y = low_y * points[18:], high_y * points[18:]
    weights = (low_y * low_x, low_y * high_x, high_y * low_x, high_y * high_x)
    top, left = low.clamp(min=0)
    bottom, right = (low + 1).minimum(places.size_hw - 1)
    # Exact in float32 for maps of up to 2^24 pixels.
    top, bottom = top * places.size_hw[1], bottom * places.size_hw[1]
    rows = (top + left, top + right, bottom + left, bottom + right)
    return torch.stack(rows, dim=1).int() + places.start, torch.stack(weights, dim=1)


def _grad_of_points(points: Tensor, places: Places, of_corners: Sequence[Tensor]) -> Tensor:
    """Turn the gradients (9, P) of the four corners' weights into that of the points, (27, P)."""
    low, lower, higher, is_inside = _lines(points, places)
    (low_y, low_x), (high_y, high_x) = lower, higher
    top_left, top_right, bottom_left, bottom_right = of_corners
    # By the factors, but for the mask.
    top = top_left * low_x + top_right * high_x
    bottom = bottom_left * low_x + bottom_right * high_x
    left = top_left * low_y + bottom_left * high_y
    right = top_right * low_y + bottom_right * high_y
    lower_in_map, higher_in_map = _in_map(low, places)
    of_offset = torch.stack((bottom, right)) * higher_in_map
    of_offset -= torch.stack((top, left)) * lower_in_map
    of_offset *= points[18:] * is_inside
    of_mask = top * low_y + bottom * high_y
    return torch.cat((of_offset.transpose(0, 1).flatten(0, 1), of_mask))


def _lines(points: Tensor, places: Places) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Find the line above each tap and the column to the left, and what they and the next weigh.

    Returns:
        The lines and columns, whole numbers in [-1, size - 1]; their factors; those of the ones
        below and to the right; whether the tap reads inside, or half outside; all (2, 9, P).
    """
    point = places.tap_yx + points[:18].view(9, 2, -1).transpose(0, 1)
    is_inside = (point >= -1) & (point < places.size_hw)
    # A point outside reads the border of zeros at -1; this also keeps every index in its map.
    point = torch.where(is_inside, point, -1)
    low = point.floor()
    beyond = point - low
    lower_in_map, higher_in_map = _in_map(low, places)
    return low, (1 - beyond) * lower_in_map, beyond * higher_in_map, is_inside


def _in_map(low: Tensor, places: Places) -> tuple[Tensor, Tensor]:
    """Return 1 where a line, and where the next one, is in the map; 0 where it is of the border."""
    return (low + 1).clamp(max=1), (places.size_hw - 1 - low).clamp(max=1)


def _places_first(x: Tensor) -> Tensor:
    """Turn (9, 4, P) into (P, 9, 4), in memory too."""
    return x.flatten(0, 1).t().contiguous().view(-1, 9, 4)
