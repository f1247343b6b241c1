"""Gathered convolution: rows and weights by hand, tables of several maps, kernels and chunks."""

import pytest
import torch
from torch import Tensor

from dyhead_det.ops.gather import deform_conv as gather
from dyhead_det.ops.gather.deform_conv import (
    gather_conv,
    gather_deform_conv2d,
    product_dtype,
    rows_of_maps,
)
from dyhead_det.ops.gather.sampling_grid import Places, concatenate_places, corners, places_of_maps

CPU = torch.device("cpu")


def one_place(dy: float, dx: float, mask: float) -> tuple[Tensor, Tensor]:
    """Rows and weights of the middle tap at pixel (1, 2) of the second 3 x 4 map of a table."""
    places = places_of_maps(2, (3, 4), source_start=100, source_hw=(3, 4), stride=1, device=CPU)[
        18:19
    ]
    points = torch.zeros(27, 1)
    points[8], points[9], points[18 + 4] = dy, dx, mask
    index, weights = corners(points, places, torch.float32)
    return index[0, 4], weights[0, 4]


def test_a_point_between_pixels_reads_its_four_corners() -> None:
    index, weights = one_place(0.25, 0.5, 1.0)
    # The map begins at row 100 + 12; pixel (1, 2) is its row 6, the one below 4 rows later.
    assert index.tolist() == [118, 119, 122, 123]
    torch.testing.assert_close(weights, torch.tensor([0.375, 0.375, 0.125, 0.125]))


def test_the_mask_multiplies_all_four() -> None:
    _, weights = one_place(0.0, 0.5, 0.2)
    torch.testing.assert_close(weights, torch.tensor([0.1, 0.1, 0.0, 0.0]))


@pytest.mark.parametrize(
    ("dy", "dx", "inside"),
    [
        (-1.5, 0.0, [0.0, 0.0, 0.5, 0.0]),  # half above the first line
        (1.5, 0.0, [0.5, 0.0, 0.0, 0.0]),  # half below the last
        (0.0, 1.5, [0.5, 0.0, 0.0, 0.0]),  # half right of the last column
        (-2.0, 0.0, [0.0, 0.0, 0.0, 0.0]),
        (1e30, -1e30, [0.0, 0.0, 0.0, 0.0]),
        (float("nan"), 0.0, [0.0, 0.0, 0.0, 0.0]),
    ],
)
def test_corners_outside_weigh_nothing_and_stay_in_their_map(
    dy: float, dx: float, inside: list[float]
) -> None:
    index, weights = one_place(dy, dx, 1.0)
    torch.testing.assert_close(weights, torch.tensor(inside))
    assert 112 <= index.min() <= index.max() < 124


def test_rows_of_channels_last_maps_are_a_view() -> None:
    maps = torch.randn(2, 5, 3, 4).contiguous(memory_format=torch.channels_last)
    rows = rows_of_maps(maps)
    assert rows.data_ptr() == maps.data_ptr()
    assert torch.equal(rows[17], maps[1, :, 1, 1])


def table_of_two_maps() -> tuple[Tensor, Tensor, list[Tensor], list[Tensor], Places, list[int]]:
    """A 6 x 4 and a 3 x 2 map in one table: the first convolved with one kernel, both with others.

    The grids: 6 x 4 on the first map, 3 x 2 on the second, 3 x 2 with stride 2 on the first.
    """
    torch.manual_seed(0)
    grids = [
        places_of_maps(1, (6, 4), source_start=0, source_hw=(6, 4), stride=1, device=CPU),
        places_of_maps(1, (3, 2), source_start=24, source_hw=(3, 2), stride=1, device=CPU),
        places_of_maps(1, (3, 2), source_start=0, source_hw=(6, 4), stride=2, device=CPU),
    ]
    points = torch.randn(27, 36, dtype=torch.double)
    weights = [torch.randn(5, 4, 3, 3, dtype=torch.double) for _ in range(3)]
    biases = [torch.randn(5, dtype=torch.double) for _ in range(3)]
    rows = torch.randn(30, 4, dtype=torch.double)
    return rows, points, weights, biases, concatenate_places(grids), [24, 6, 6]


def test_one_call_convolves_several_grids_with_their_own_kernels() -> None:
    rows, points, weights, biases, places, num_places = table_of_two_maps()
    out = gather_conv(rows, points, weights, biases, places, num_places)
    maps = [rows[:24].view(1, 6, 4, 4), rows[24:].view(1, 3, 2, 4), rows[:24].view(1, 6, 4, 4)]
    for k, (part, points_here, size) in enumerate(
        zip(
            out.split(num_places),
            points.split(num_places, dim=1),
            [(6, 4), (3, 2), (3, 2)],
            strict=True,
        )
    ):
        points_map = points_here.reshape(1, 27, *size)
        expected = gather_deform_conv2d(
            maps[k].permute(0, 3, 1, 2), points_map[:, :18], points_map[:, 18:], weights[k],
            biases[k], stride=2 if k == 2 else 1,
        )  # fmt: skip
        torch.testing.assert_close(part, rows_of_maps(expected))


@pytest.mark.parametrize("places_per_chunk", [1, 7, 25, 1000])
def test_gradcheck_whatever_the_chunks(
    places_per_chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "CPU_CHUNK_NUMBERS", 4 * places_per_chunk)
    monkeypatch.setattr("dyhead_det.ops.gather.sampling_grid.CPU_PART_PLACES", places_per_chunk)
    monkeypatch.setattr("dyhead_det.ops.gather.parallel.MIN_NUMBERS", 0)
    rows, points, weights, biases, places, num_places = table_of_two_maps()
    inputs = [each.requires_grad_() for each in (rows, points, *weights, *biases)]

    def convolve(rows: Tensor, points: Tensor, *parameters: Tensor) -> Tensor:
        return gather_conv(rows, points, parameters[:3], parameters[3:], places, num_places)

    torch.autograd.gradcheck(convolve, inputs, fast_mode=True)


def test_a_second_derivative_is_refused_and_not_wrong() -> None:
    rows, points, weights, biases, places, num_places = table_of_two_maps()
    out = gather_conv(rows.requires_grad_(), points, weights, biases, places, num_places)
    (gradient,) = torch.autograd.grad(out.square().sum(), rows, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_products_are_in_the_autocast_type_except_for_float64() -> None:
    x = torch.zeros(1)
    assert product_dtype(x) == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert product_dtype(x) == torch.bfloat16
        assert product_dtype(x.double()) == torch.float64
