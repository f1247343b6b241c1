"""Positions of levels on an image, against values worked out by hand."""

import numpy as np
import pytest
import torch

from dyhead_det.dyhead.trace import Sampling
from dyhead_det.explain.grids import Grids, sampled_positions

# An image of 50 x 100 pixels, resized to twice that; three levels.
GRIDS = Grids(strides=(8, 16, 32), resized_hw=(100, 200), image_hw=(50, 100))


def test_a_position_is_the_middle_of_its_square():
    # Position (1, 2) of stride 8 covers pixels 16..24 x 8..16 of the resized image.
    assert GRIDS.pixels(np.array([[1.0, 2.0]], dtype=np.float32), 0).tolist() == [[10.0, 6.0]]


@pytest.mark.parametrize(
    ("point", "level", "location"),
    [((10, 6), 0, (1, 2)), ((0, 0), 2, (0, 0)), ((99.9, 49.9), 2, (3, 6)), ((100, 50), 1, (6, 12))],
)
def test_a_point_lies_in_the_square_of_its_position(point, level, location):
    assert GRIDS.location(point, level) == location


@pytest.mark.parametrize(("edge", "level"), [(1, 0), (32, 0), (64, 1), (128, 2), (1000, 2)])
def test_a_box_is_looked_at_on_the_level_where_it_is_eight_positions_long(edge, level):
    """Its edge doubles by the resizing: 32 pixels are 64, eight positions of stride 8."""
    assert GRIDS.level_of_box((0, 0, edge, edge)) == level


def test_padding_is_left_out():
    assert GRIDS.inside(torch.zeros(1, 9, 4, 8), 2).shape == (9, 4, 7)  # 200 / 32 is above 6


def sampling(stride, size_hw, *, dy=0.0, dx=0.0):
    offset = torch.zeros(1, 18, *size_hw)
    offset[:, 0::2], offset[:, 1::2] = dy, dx
    return Sampling(0, stride, offset, torch.rand(1, 9, *size_hw))


def test_the_nine_taps_lie_around_the_location_moved_by_their_offsets():
    positions, masks = sampled_positions(sampling(1, (6, 8), dy=0.5, dx=-1), (2, 3), (6, 8))
    assert positions.tolist() == [[y, x] for y in (1.5, 2.5, 3.5) for x in (1, 2, 3)]
    assert masks.shape == (9,)


def test_the_finer_level_is_read_with_stride_two():
    positions, _ = sampled_positions(sampling(2, (6, 8)), (2, 3), (6, 8))
    assert positions[4].tolist() == [4, 6]


def test_of_the_coarser_level_the_nearest_location_is_taken():
    """Corners lie on corners: row 5 of 6 is row 2 of 3, row 2 is row 0.8, so 1."""
    coarser = sampling(1, (3, 4))
    assert sampled_positions(coarser, (5, 7), (6, 8))[0][4].tolist() == [2, 3]
    positions, masks = sampled_positions(coarser, (2, 0), (6, 8))
    assert positions[4].tolist() == [1, 0]
    assert masks.tolist() == coarser.mask[0, :, 1, 0].tolist()
