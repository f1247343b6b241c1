"""RoIAlign by gathered features: on a CPU several times faster than torchvision's operator.

On a GPU it is the one whose gradient has the same bits again; torchvision's own of that kind is
compiled for minutes.

A region is cut into bins; a bin samples its map at some locations between the pixels and averages
(He et al., arXiv 1703.06870). Whether a location lies inside the map, and the weights of its
bilinear neighbors, are products of one factor for its row and one for its column; so a bin is

    sum over rows y and columns x of  weight_y * weight_x * map[y, x]

with the few rows and columns that its locations touch: a weighted sum of features of the
channels-last map (see `row_sums.py`). Locations and weights are computed as in torchvision's
operator, number by number.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
import torchvision
from torch import Tensor
from torch.autograd.function import once_differentiable
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper

from dyhead_det.ops.gather.context import Context
from dyhead_det.ops.gather.deform_conv import exact_dtype, features_of_maps
from dyhead_det.ops.gather.row_sums import add_to_rows, sum_rows


class PyramidRoIAlign(MultiScaleRoIAlign):  # type: ignore[misc]  # untyped base
    """Torchvision's pooling from several levels, with known strides; `is_gathered` tells how.

    Torchvision guesses the strides from the first image, and takes half of them where that image
    is padded to much more than its height.
    """

    def __init__(
        self,
        level_names: Sequence[str],
        *,
        finest_level: int,
        output_size: int,
        sampling_ratio: int,
    ) -> None:
        super().__init__(list(level_names), output_size, sampling_ratio)
        coarsest_level = finest_level + len(level_names) - 1
        self.scales = [2.0**-level for level in range(finest_level, coarsest_level + 1)]
        self.map_levels = LevelMapper(finest_level, coarsest_level)

    def forward(
        self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> Tensor:
        """Pool every box from the level that suits its size.

        Args:
            x: maps (B, C, H_l, W_l) by name; those that are not among the level names are left.
            boxes: per image (N_b, 4), xyxy in pixels of the padded images.
            image_shapes: not needed.

        Returns:
            (N, C, *output_size) for the N boxes of all images.
        """
        maps = [x[name] for name in self.featmap_names]
        if not is_gathered(maps[0]):
            pooled: Tensor = super().forward(x, boxes, image_shapes)
            return pooled
        return pool_by_level(
            maps,
            regions_of(boxes),
            self.map_levels(boxes),
            self.scales,
            output_size=self.output_size,
            sampling_ratio=self.sampling_ratio,
            aligned=False,
        )


def regions_of(boxes: list[Tensor]) -> Tensor:
    """Write the boxes of all images, each (N_b, 4), as (N, 5): which image, and the box."""
    image_index = [torch.full_like(each[:, :1], index) for index, each in enumerate(boxes)]
    return torch.cat([torch.cat(image_index), torch.cat(boxes)], dim=1)


def pool_by_level(
    maps: Sequence[Tensor],
    regions: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    *,
    output_size: tuple[int, int],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Pool each region from its level.

    Args:
        maps: one (B, C, H_l, W_l) per level.
        regions: (N, 5), see `regions_of`.
        levels: which of the maps, (N,).
        scales: one over the maps' strides.
        output_size: see `roi_align`.
        sampling_ratio: see `roi_align`.
        aligned: see `roi_align`.

    Returns:
        (N, C, *output_size), in the type of the first map.
    """
    chosen = [(levels == level).nonzero().flatten() for level in range(len(maps))]
    pooled = [
        roi_align(
            each,
            regions[here],
            output_size,
            spatial_scale=scale,
            sampling_ratio=sampling_ratio,
            aligned=aligned,
        ).to(maps[0].dtype)
        for each, here, scale in zip(maps, chosen, scales, strict=True)
    ]
    return torch.cat(pooled)[torch.cat(chosen).argsort()]


def is_gathered(maps: Tensor) -> bool:
    """Tell whether maps are pooled here; elsewhere, and in an export, torchvision's operator is."""
    has_equal_bits = maps.is_cuda and torch.are_deterministic_algorithms_enabled()
    return (maps.device.type == "cpu" or has_equal_bits) and not torchvision._is_tracing()


def roi_align(
    maps: Tensor,
    regions: Tensor,
    output_size: tuple[int, int],
    *,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Average each bin of each region; differentiable by the maps, as torchvision's operator.

    Args:
        maps: (B, C, H, W); fastest where they are channels-last.
        regions: (N, 5), see `regions_of`.
        output_size: rows and columns of bins.
        spatial_scale: one over the stride of the maps.
        sampling_ratio: sampling locations per bin and direction; 0 means one for each pixel.
        aligned: pixel centers lie at halves; False is the original's mistake.

    Returns:
        (N, C, *output_size), in the type of the maps.
    """
    exact = exact_dtype(maps.dtype)
    regions = regions.to(exact)
    if not is_gathered(maps):
        pooled: Tensor = torchvision.ops.roi_align(
            maps.to(exact), regions, output_size, spatial_scale, sampling_ratio, aligned
        )
        return pooled.to(maps.dtype)
    boxes = regions[:, 1:] * spatial_scale - (0.5 if aligned else 0.0)
    begin, size = boxes[:, :2].flip(1), (boxes[:, 2:] - boxes[:, :2]).flip(1)  # (N, 2), y first
    if not aligned:
        size = size.clamp(min=1)
    bin_size = size / size.new_tensor(output_size)
    groups = list(_by_number_of_locations(bin_size, sampling_ratio))
    reads = []
    for group, num_locations in groups:
        (y, y_weights), (x, x_weights) = (
            _lines(
                begin[group, d],
                bin_size[group, d],
                output_size[d],
                num_locations[d],
                maps.shape[2 + d],
            )
            for d in (0, 1)
        )
        y = y + maps.shape[2] * regions[group, 0].int()[:, None, None]
        index = y[:, :, None, :, None] * maps.shape[3] + x[:, None, :, None]
        weights = y_weights[:, :, None, :, None] * x_weights[:, None, :, None]
        reads.append((index.flatten(3), weights.flatten(3) / math.prod(num_locations)))
    sums: Tensor = _Sums.apply(features_of_maps(maps.to(exact)), reads)
    pooled = sums.view(len(regions), *output_size, maps.shape[1]).permute(0, 3, 1, 2)
    if len(groups) > 1:
        pooled = pooled[torch.cat([group for group, _ in groups]).argsort()]
    return pooled.to(maps.dtype)


def _by_number_of_locations(
    bin_size: Tensor, sampling_ratio: int
) -> Iterator[tuple[Tensor, tuple[int, int]]]:
    """Group the regions, (N,) altogether, by how many rows and columns of locations a bin has."""
    if sampling_ratio > 0:
        yield torch.arange(len(bin_size), device=bin_size.device), (sampling_ratio, sampling_ratio)
        return
    numbers = bin_size.ceil().clamp(min=0).int()
    for rows, columns in sorted(set(map(tuple, numbers.tolist()))) or [(1, 1)]:
        same = (numbers[:, 0] == rows) & (numbers[:, 1] == columns)
        yield same.nonzero().flatten(), (rows, columns)


def _lines(
    begin: Tensor, bin_size: Tensor, num_bins: int, num_locations: int, num_lines: int
) -> tuple[Tensor, Tensor]:
    """Find the lines (rows or columns) of a map that the locations of each bin touch.

    Args:
        begin: where the regions begin, (N,), in lines.
        bin_size: lines per bin, (N,).
        num_bins: per region.
        num_locations: per bin.
        num_lines: height or width of the map.

    Returns:
        Lines and their weights, both (N, num_bins, 2 * num_locations).
    """
    begin, bin_size = begin[:, None, None], bin_size[:, None, None]
    numbers = partial(torch.arange, dtype=begin.dtype, device=begin.device)
    bins, middles = numbers(num_bins)[:, None], numbers(num_locations) + 0.5
    # (N, num_bins, num_locations)
    location = begin + bins * bin_size + middles * bin_size / num_locations
    is_inside = (location >= -1) & (location <= num_lines)
    location = torch.where(is_inside, location, 0).clamp(0, num_lines - 1)
    low = location.floor()
    high = (low + 1).clamp(max=num_lines - 1)
    beyond = location - low
    weights = torch.cat((1 - beyond, beyond), dim=2) * is_inside.repeat(1, 1, 2)
    return torch.cat((low, high), dim=2).int(), weights


class _Sums(torch.autograd.Function):
    """Weighted sums of features (R, C); several numbers of features per sum."""

    @staticmethod
    def forward(ctx: Context, features: Tensor, reads: list[tuple[Tensor, Tensor]]) -> Tensor:
        ctx.reads, ctx.features_shape = reads, features.shape
        sums = [sum_rows(features, index, weights) for index, weights in reads]
        return torch.cat(sums) if len(sums) != 1 else sums[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, None]:
        grad_features = grad.new_zeros(ctx.features_shape)
        num_sums = [index.shape[:-1].numel() for index, _ in ctx.reads]
        for (index, weights), grad_sums in zip(ctx.reads, torch.split(grad, num_sums), strict=True):
            add_to_rows(grad_features, index, weights, grad_sums)
        return grad_features, None
