"""Gathered convolution: neighbors and weights by hand, several maps, kernels and chunks."""

import pytest
import torch
from torch import Tensor

from dyhead_det.ops.gather import deform_conv as gather
from dyhead_det.ops.gather import row_sums
from dyhead_det.ops.gather.deform_conv import (
    features_of_maps,
    gather_conv,
    gather_deform_conv2d,
    product_dtype,
)
from dyhead_det.ops.gather.sampling_grid import (
    SamplingGrid,
    bilinear_neighbors,
    build_sampling_grid,
    concatenate_grids,
)

CPU = torch.device("cpu")


def one_location(dy: float, dx: float, mask: float) -> tuple[Tensor, Tensor]:
    """Neighbors and weights of the middle tap at pixel (1, 2) of the second of two 3 x 4 maps."""
    grid = build_sampling_grid(2, (3, 4), source_start=100, source_hw=(3, 4), stride=1, device=CPU)[
        18:19
    ]
    offsets_and_masks = torch.zeros(27, 1)
    offsets_and_masks[8], offsets_and_masks[9], offsets_and_masks[18 + 4] = dy, dx, mask
    index, weights = bilinear_neighbors(offsets_and_masks, grid, torch.float32)
    return index[0, 4], weights[0, 4]


def test_a_location_between_pixels_reads_its_four_neighbors() -> None:
    index, weights = one_location(0.25, 0.5, 1.0)
    # The map begins at row 100 + 12; pixel (1, 2) is its row 6, the one below 4 rows later.
    assert index.tolist() == [118, 119, 122, 123]
    torch.testing.assert_close(weights, torch.tensor([0.375, 0.375, 0.125, 0.125]))


def test_the_mask_multiplies_all_four() -> None:
    _, weights = one_location(0.0, 0.5, 0.2)
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
def test_neighbors_outside_weigh_nothing_and_stay_in_their_map(
    dy: float, dx: float, inside: list[float]
) -> None:
    index, weights = one_location(dy, dx, 1.0)
    torch.testing.assert_close(weights, torch.tensor(inside))
    assert 112 <= index.min() <= index.max() < 124


def test_features_of_channels_last_maps_are_a_view() -> None:
    maps = torch.randn(2, 5, 3, 4).contiguous(memory_format=torch.channels_last)
    features = features_of_maps(maps)
    assert features.data_ptr() == maps.data_ptr()
    assert torch.equal(features[17], maps[1, :, 1, 1])


def features_of_two_maps() -> tuple[
    Tensor, Tensor, list[Tensor], list[Tensor], SamplingGrid, list[int]
]:
    """A 6 x 4 map and then a 3 x 2 map: the first convolved with one kernel, both with others.

    The grids: 6 x 4 on the first map, 3 x 2 on the second, 3 x 2 with stride 2 on the first.
    """
    torch.manual_seed(0)
    grids = [
        build_sampling_grid(1, (6, 4), source_start=0, source_hw=(6, 4), stride=1, device=CPU),
        build_sampling_grid(1, (3, 2), source_start=24, source_hw=(3, 2), stride=1, device=CPU),
        build_sampling_grid(1, (3, 2), source_start=0, source_hw=(6, 4), stride=2, device=CPU),
    ]
    offsets_and_masks = torch.randn(27, 36, dtype=torch.double)
    weights = [torch.randn(5, 4, 3, 3, dtype=torch.double) for _ in range(3)]
    biases = [torch.randn(5, dtype=torch.double) for _ in range(3)]
    features = torch.randn(30, 4, dtype=torch.double)
    return features, offsets_and_masks, weights, biases, concatenate_grids(grids), [24, 6, 6]


def test_one_call_convolves_several_grids_with_their_own_kernels() -> None:
    features, offsets_and_masks, weights, biases, grid, num_locations = features_of_two_maps()
    out = gather_conv(features, offsets_and_masks, weights, biases, grid, num_locations)
    maps = [
        features[:24].view(1, 6, 4, 4),
        features[24:].view(1, 3, 2, 4),
        features[:24].view(1, 6, 4, 4),
    ]
    for k, (convolved, sampling, size) in enumerate(
        zip(
            out.split(num_locations),
            offsets_and_masks.split(num_locations, dim=1),
            [(6, 4), (3, 2), (3, 2)],
            strict=True,
        )
    ):
        offset, mask = sampling.reshape(1, 27, *size).split([18, 9], dim=1)
        expected = gather_deform_conv2d(
            maps[k].permute(0, 3, 1, 2), offset, mask, weights[k], biases[k],
            stride=2 if k == 2 else 1,
        )  # fmt: skip
        torch.testing.assert_close(convolved, features_of_maps(expected))


@pytest.mark.parametrize("locations_per_chunk", [1, 7, 25, 1000])
def test_gradcheck_whatever_the_chunks(
    locations_per_chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "CPU_CHUNK_NUMBERS", 4 * locations_per_chunk)
    monkeypatch.setattr(
        "dyhead_det.ops.gather.sampling_grid.CPU_CHUNK_LOCATIONS", locations_per_chunk
    )
    monkeypatch.setattr("dyhead_det.ops.gather.parallel.MIN_NUMBERS", 0)
    features, offsets_and_masks, weights, biases, grid, num_locations = features_of_two_maps()
    inputs = [each.requires_grad_() for each in (features, offsets_and_masks, *weights, *biases)]

    def convolve(features: Tensor, offsets_and_masks: Tensor, *parameters: Tensor) -> Tensor:
        return gather_conv(
            features, offsets_and_masks, parameters[:3], parameters[3:], grid, num_locations
        )

    torch.autograd.gradcheck(convolve, inputs, fast_mode=True)


def test_gradients_are_the_same_where_the_device_is_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features, sampling, weights, biases, grid, num_locations = features_of_two_maps()
    inputs = [each.requires_grad_() for each in (features, sampling, *weights, *biases)]
    monkeypatch.setattr(gather, "CPU_CHUNK_NUMBERS", 4 * 7)  # chunks that begin inside a map

    def gradients() -> tuple[Tensor, ...]:
        out = gather_conv(features, sampling, weights, biases, grid, num_locations)
        return torch.autograd.grad(out.square().sum(), inputs)

    expected = gradients()
    monkeypatch.setattr(row_sums, "_is_size_free", lambda _: False)
    torch.testing.assert_close(gradients(), expected)


@pytest.mark.parametrize(
    ("chunk", "num_locations", "rows_read"),
    [
        (slice(0, 4), (4,), slice(7, 19)),
        (slice(3, 5), (1, 1), slice(7, 31)),
        (slice(4, 8), (4,), slice(19, 31)),
        (slice(2, 10), (2, 4, 2), slice(0, 31)),
    ],
)
def test_a_chunk_of_a_grid_knows_the_maps_that_it_samples(
    chunk: slice, num_locations: tuple[int, ...], rows_read: slice
) -> None:
    # Two images of 3 x 4 pixels from row 7 on, read with stride 2; then one of 1 x 5 from row 0 on.
    grid = concatenate_grids(
        [
            build_sampling_grid(2, (2, 2), source_start=7, source_hw=(3, 4), stride=2, device=CPU),
            build_sampling_grid(1, (1, 5), source_start=0, source_hw=(1, 5), stride=1, device=CPU),
        ]
    )
    here = grid[chunk]
    assert len(here) == sum(here.num_locations)
    assert here.num_locations == num_locations
    assert grid.rows_read(chunk) == here.rows_read(slice(None)) == rows_read


def test_a_second_derivative_is_refused_and_not_wrong() -> None:
    features, offsets_and_masks, weights, biases, grid, num_locations = features_of_two_maps()
    out = gather_conv(
        features.requires_grad_(), offsets_and_masks, weights, biases, grid, num_locations
    )
    (gradient,) = torch.autograd.grad(out.square().sum(), features, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_products_are_in_the_autocast_type_except_for_float64() -> None:
    x = torch.zeros(1)
    assert product_dtype(x) == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert product_dtype(x) == torch.bfloat16
        assert product_dtype(x.double()) == torch.float64
