"""RoIAlign by sums of rows equals torchvision's operator, for regions of all kinds."""

import pytest
import torch
import torchvision
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign

from dyhead_det.ops import roi_align as ours
from dyhead_det.ops.roi_align import PyramidRoIAlign, roi_align

from conftest import deterministic_on

SAMPLING = [(2, False), (1, True), (0, False), (0, True), (3, True)]


def regions_of_all_kinds() -> Tensor:
    """On two 9 x 14 maps of stride 4: inside, outside, on the borders, thin, empty, inverted."""
    torch.manual_seed(0)
    corner = torch.rand(30, 2) * torch.tensor([56.0, 36.0]) - 4
    boxes = torch.cat((corner, corner + 40 * torch.rand(30, 2)), dim=1)
    odd = torch.tensor(
        [
            [0.0, 0, 56, 36],
            [-30, -20, 90, 70],
            [-50, -50, -20, -20],
            [80, 60, 120, 90],
            [52, 32, 56, 36],
            [10, 10, 10, 10],
            [10, 10, 10.5, 34],
            [30, 20, 20, 10],
        ]
    )
    boxes = torch.cat((boxes, odd))
    return torch.cat((torch.arange(len(boxes))[:, None] % 2, boxes), dim=1)


def pool_with_gradient(function, maps: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
    maps = maps.detach().requires_grad_()
    pooled = function(maps, regions)
    torch.manual_seed(1)
    probe = torch.randn(pooled.shape, dtype=maps.dtype).to(maps.device)
    (gradient,) = torch.autograd.grad(pooled, maps, probe)
    return pooled, gradient


@pytest.mark.parametrize(("sampling_ratio", "aligned"), SAMPLING)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_equal_the_operators(
    sampling_ratio: int,
    aligned: bool,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
    device: torch.device,
) -> None:
    maps = torch.randn(2, 5, 9, 14, dtype=dtype).to(device, memory_format=memory_format)
    regions = regions_of_all_kinds().to(device, dtype)
    options = {"spatial_scale": 0.25, "sampling_ratio": sampling_ratio, "aligned": aligned}
    with deterministic_on(device):  # else a GPU takes torchvision's
        got = pool_with_gradient(lambda x, r: roi_align(x, r, (3, 2), **options), maps, regions)
    expected = pool_with_gradient(
        lambda x, r: torchvision.ops.roi_align(x, r, (3, 2), **options), maps, regions
    )
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("sampling_ratio", [2, 0])
def test_gradcheck(sampling_ratio: int) -> None:
    maps = torch.randn(2, 3, 9, 14, dtype=torch.double, requires_grad=True)
    regions = regions_of_all_kinds()[::4].double()

    def pool(maps: Tensor) -> Tensor:
        return roi_align(
            maps, regions, (2, 2), spatial_scale=0.25, sampling_ratio=sampling_ratio, aligned=True
        )

    torch.autograd.gradcheck(pool, maps, fast_mode=True)


@pytest.mark.parametrize("sampling_ratio", [2, 0])
def test_without_regions_there_is_nothing_and_no_gradient(sampling_ratio: int) -> None:
    maps = torch.randn(1, 3, 8, 8, requires_grad=True)
    pooled = roi_align(
        maps, torch.zeros(0, 5), (7, 7),
        spatial_scale=0.5, sampling_ratio=sampling_ratio, aligned=False,
    )  # fmt: skip
    assert pooled.shape == (0, 3, 7, 7)
    pooled.sum().backward()
    assert maps.grad is not None
    assert not maps.grad.any()


@pytest.mark.usefixtures("equal_bits")
def test_equal_inputs_give_equal_bits(device: torch.device) -> None:
    maps = torch.randn(2, 5, 9, 14).to(device)
    results = [
        pool_with_gradient(
            lambda x, r: roi_align(
                x, r, (7, 7), spatial_scale=0.25, sampling_ratio=2, aligned=False
            ),
            maps,
            regions_of_all_kinds().to(device),
        )
        for _ in range(2)
    ]
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_maps_are_read_at_exact_places_and_summed_in_float32(
    dtype: torch.dtype,
) -> None:
    maps = torch.randn(2, 5, 9, 14).to(dtype)
    options = {"spatial_scale": 0.25, "sampling_ratio": 2, "aligned": False}
    pooled = roi_align(maps, regions_of_all_kinds(), (7, 7), **options)
    assert pooled.dtype == dtype
    exact = roi_align(maps.float(), regions_of_all_kinds(), (7, 7), **options)
    torch.testing.assert_close(pooled, exact.to(dtype))


def pyramid_and_boxes() -> tuple[dict[str, Tensor], list[Tensor]]:
    maps = {f"p{k}": torch.randn(2, 4, 256 >> k, 512 >> k) for k in (2, 3, 4, 5, 6)}
    corner = torch.rand(60, 2) * torch.tensor([400.0, 150.0])
    boxes = torch.cat((corner, corner + torch.rand(60, 2) * torch.tensor([600.0, 400.0])), dim=1)
    return maps, [boxes[:35], boxes[35:]]


def test_a_pyramid_is_pooled_as_by_torchvisions_module() -> None:
    maps, boxes = pyramid_and_boxes()
    names = ["p2", "p3", "p4", "p5"]
    pool = PyramidRoIAlign(names, finest_level=2, output_size=7, sampling_ratio=2)
    theirs = MultiScaleRoIAlign(names, output_size=7, sampling_ratio=2)
    shapes = [(256, 512), (240, 500)]
    expected = theirs(maps, boxes, shapes)
    torch.testing.assert_close(pool(maps, boxes, shapes), expected, rtol=1e-5, atol=1e-5)
    assert pool.scales == theirs.scales


def test_without_the_fast_path_it_is_torchvisions_module_to_the_last_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ours, "is_gathered", lambda _maps: False)
    maps, boxes = pyramid_and_boxes()
    names = ["p2", "p3", "p4", "p5"]
    pool = PyramidRoIAlign(names, finest_level=2, output_size=7, sampling_ratio=2)
    expected = MultiScaleRoIAlign(names, output_size=7, sampling_ratio=2)(maps, boxes, [(256, 512)])
    assert torch.equal(pool(maps, boxes, [(256, 512)]), expected)


def test_strides_are_known_where_torchvision_guesses_half() -> None:
    # 70 pixels padded to 128: the finest map has 32 lines, and 32 is nearer to 70 / 2.
    maps = {"p2": torch.arange(32.0).expand(1, 1, 32, 32)}
    box = [torch.tensor([[32.0, 8.0, 48.0, 24.0]])]
    pool = PyramidRoIAlign(["p2"], finest_level=2, output_size=1, sampling_ratio=2)
    # From column 8 to column 12, so 10 on average.
    assert pool(maps, box, [(70, 70)]).item() == 10
    assert MultiScaleRoIAlign(["p2"], 1, 2)(maps, box, [(70, 70)]).item() == 20
