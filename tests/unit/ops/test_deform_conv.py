"""Modulated deformable convolution: locations by hand, and every backend against the formula."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dyhead_det.ops.deform_conv import modulated_deform_conv2d, resolve_backend

pytestmark = pytest.mark.usefixtures("on_device")

BACKENDS = ["torchvision", "gather", "reference", "grid_sample"]


def random_operands(
    size: tuple[int, int, int, int], out_channels: int, stride: int, dtype: torch.dtype
) -> list[Tensor]:
    """x, offset, mask, weight, bias; offsets reach beyond every border."""
    b, c, h, w = size
    out = (-(-h // stride), -(-w // stride))
    return [
        torch.randn(size, dtype=dtype),
        2 * torch.randn(b, 18, *out, dtype=dtype),
        torch.rand(b, 9, *out, dtype=dtype),
        torch.randn(out_channels, c, 3, 3, dtype=dtype),
        torch.randn(out_channels, dtype=dtype),
    ]


def read_once(x: Tensor, dy: float, dx: float, backend: str) -> Tensor:
    """Let only the middle tap read, moved by (dy, dx), with mask one and kernel one."""
    h, w = x.shape
    offset = torch.zeros(1, 18, h, w)
    offset[:, 8], offset[:, 9] = dy, dx
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 1, 1] = 1
    out = modulated_deform_conv2d(
        x[None, None], offset, torch.ones(1, 9, h, w), weight, torch.zeros(1),
        stride=1, backend=backend,
    )  # fmt: skip
    return out[0, 0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_offsets_it_is_an_ordinary_convolution(backend: str) -> None:
    torch.manual_seed(0)
    for stride in (1, 2):
        x, offset, mask, weight, bias = random_operands((2, 3, 7, 5), 4, stride, torch.double)
        out = modulated_deform_conv2d(
            x, 0 * offset, mask**0, weight, bias, stride=stride, backend=backend
        )
        expected = F.conv2d(x, weight, bias, stride=stride, padding=1)
        torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_first_offset_moves_down_and_second_to_the_right(backend: str) -> None:
    x = torch.arange(12.0).view(3, 4)
    torch.testing.assert_close(read_once(x, 1, 0, backend)[:2], x[1:])
    torch.testing.assert_close(read_once(x, 0, 1, backend)[:, :3], x[:, 1:])


@pytest.mark.parametrize("backend", BACKENDS)
def test_between_pixels_it_interpolates(backend: str) -> None:
    x = torch.tensor([[1.0, 2.0], [5.0, 14.0]])
    # (0.25, 0.5): 3/4 * (1 + 2) / 2 + 1/4 * (5 + 14) / 2
    torch.testing.assert_close(read_once(x, 0.25, 0.5, backend)[0, 0].item(), 3.5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_outside_the_map_is_zero_and_fades_in_over_one_pixel(backend: str) -> None:
    x = torch.ones(2, 2)
    assert read_once(x, -1, 0, backend)[0].tolist() == [0, 0]
    torch.testing.assert_close(read_once(x, -0.75, 0, backend)[0], torch.full((2,), 0.25))
    torch.testing.assert_close(read_once(x, 0.75, 0, backend)[1], torch.full((2,), 0.25))
    assert read_once(x, 1e9, -1e9, backend).abs().sum() == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_mask_weighs_its_own_tap(backend: str) -> None:
    x, mask = torch.ones(1, 1, 3, 3), torch.zeros(1, 9, 3, 3)
    mask[:, 5] = 0.5
    weight = torch.arange(1.0, 10.0).view(1, 1, 3, 3)
    out = modulated_deform_conv2d(
        x, torch.zeros(1, 18, 3, 3), mask, weight, torch.zeros(1), stride=1, backend=backend
    )
    # Tap 5 = row 1, column 2 reads the right neighbor with kernel value 6.
    expected = torch.tensor([3.0, 3.0, 0.0]).expand(3, 3)
    torch.testing.assert_close(out[0, 0], expected)


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "reference"])
@pytest.mark.parametrize(
    ("size", "stride"),
    [((2, 4, 7, 5), 1), ((2, 4, 7, 5), 2), ((1, 3, 1, 1), 1), ((3, 2, 1, 9), 2), ((0, 4, 6, 6), 1)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_equal_the_formula(
    backend: str, size: tuple[int, int, int, int], stride: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    operands = [each.requires_grad_() for each in random_operands(size, 5, stride, dtype)]
    results = []
    for name in (backend, "reference"):
        out = modulated_deform_conv2d(*operands, stride=stride, backend=name)
        torch.manual_seed(1)
        results.append(
            (out, *torch.autograd.grad(out, operands, torch.randn(out.shape, dtype=dtype)))
        )
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9
    for got, wanted in zip(*results, strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
def test_zero_offsets_at_the_border_have_the_same_gradient_everywhere(backend: str) -> None:
    # Where offsets start at zero, locations lie exactly on -1: the one case with two slopes.
    torch.manual_seed(0)
    x, offset, mask, weight, bias = random_operands((1, 3, 4, 4), 2, 1, torch.double)
    gradients = []
    for name in (backend, "torchvision"):
        zeros = torch.zeros_like(offset).requires_grad_()
        out = modulated_deform_conv2d(x, zeros, mask, weight, bias, stride=1, backend=name)
        gradients += torch.autograd.grad(out.square().sum(), zeros)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_operands_need_no_copy_by_the_caller(backend: str) -> None:
    torch.manual_seed(0)
    x, offset, mask, weight, bias = random_operands((2, 4, 6, 5), 3, 1, torch.double)
    expected = modulated_deform_conv2d(x, offset, mask, weight, bias, stride=1, backend=backend)
    out = modulated_deform_conv2d(
        x.contiguous(memory_format=torch.channels_last),
        offset.transpose(2, 3).contiguous().transpose(2, 3),
        mask.repeat_interleave(2, dim=1)[:, ::2],
        weight.contiguous(memory_format=torch.channels_last),
        bias,
        stride=1,
        backend=backend,
    )
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bfloat16_maps_are_read_at_float32_places(backend: str) -> None:
    # At column 300 bfloat16 resolves 2 pixels; half a pixel must still be half a pixel.
    x = torch.arange(320.0).expand(1, 320).remainder(2)
    read = read_once(x.bfloat16(), 0, 0.5, backend)
    assert read.dtype == torch.bfloat16
    torch.testing.assert_close(read[0, :-1], torch.full((319,), 0.5, dtype=torch.bfloat16))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", BACKENDS)
def test_it_works_under_autocast_with_gradients(
    backend: str, dtype: torch.dtype, device: torch.device
) -> None:
    torch.manual_seed(0)
    operands = [each.requires_grad_() for each in random_operands((1, 4, 5, 6), 3, 1, torch.float)]
    expected = modulated_deform_conv2d(*operands, stride=1, backend="reference")
    with torch.autocast(device.type, dtype):
        out = modulated_deform_conv2d(*operands, stride=1, backend=backend)
    # bfloat16 keeps eight bits, sums of 36 products of size one.
    torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.2)
    out.float().sum().backward()
    assert all(each.grad is not None and each.grad.dtype == torch.float for each in operands)


def test_offsets_of_another_size_are_refused() -> None:
    x, offset, mask, weight, bias = random_operands((1, 4, 6, 6), 3, 1, torch.float)
    with pytest.raises(ValueError, match=r"stride 2 .* \(1, 18, 3, 3\) and \(1, 9, 3, 3\)"):
        modulated_deform_conv2d(x, offset, mask, weight, bias, stride=2, backend="auto")


def test_an_unknown_backend_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'cuda'; one of auto"):
        resolve_backend("cuda", torch.zeros(1))


def test_a_gpu_gathers_where_bits_have_to_be_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)  # `meta` has none
    x = torch.empty(1, 1, 1, 1, device="meta")
    assert resolve_backend("auto", x) == "torchvision"
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert resolve_backend("auto", x) == "gather"
