"""Deformable convolutions by Triton's kernels, beside others in float64 on the CPU.

    TRITON_INTERPRET=1 python tests/unit/ops/triton_cases.py RESULTS

computes all cases in Triton's interpreter, which has to be chosen before Triton is imported, and
saves what each gave and should have given. On a GPU tests call `compare` themselves.
"""

import sys
from collections.abc import Callable
from unittest import mock

import torch
from torch import Tensor
from torchvision.ops import deform_conv2d

from dyhead_det.dyhead.head import DyHead
from dyhead_det.ops.deform_conv import modulated_deform_conv2d
from dyhead_det.ops.gather.deform_conv import gather_conv
from dyhead_det.ops.gather.sampling_grid import build_sampling_grid
from dyhead_det.ops.triton import deform_conv as triton_deform_conv

Pair = tuple[Tensor, Tensor]
"""What is got, and what is wanted."""


def draw(
    size: tuple[int, int, int, int],
    out_channels: int,
    *,
    stride: int = 1,
    dtype: torch.dtype = torch.float32,
) -> list[Tensor]:
    """Return x, offset, mask, weight, bias; offsets reach beyond every border."""
    b, c, h, w = size
    out = (-(-h // stride), -(-w // stride))
    return [
        torch.randn(size).to(dtype),
        2 * torch.randn(b, 18, *out),
        torch.rand(b, 9, *out),
        torch.randn(out_channels, c, 3, 3).to(dtype),
        torch.randn(out_channels).to(dtype),
    ]


def beside_torchvision(operands: list[Tensor], device: torch.device, stride: int) -> list[Pair]:
    """Return the output and all gradients, beside those of torchvision's operator."""
    got = [each.to(device).requires_grad_() for each in operands]
    out = modulated_deform_conv2d(*got, stride=stride, backend="triton")
    probe = torch.randn(out.shape).to(out.dtype)
    gradients = torch.autograd.grad(out, got, probe.to(device))
    exact = [each.detach().double().requires_grad_() for each in operands]
    x, offset, mask, weight, bias = exact
    defined = offset.nan_to_num(nan=1e9)
    wanted = deform_conv2d(x, defined, weight, bias, stride=stride, padding=1, mask=mask)
    exact_gradients = torch.autograd.grad(wanted, exact, probe.double())
    for each, operand in zip(gradients, got, strict=True):
        assert each.dtype == operand.dtype
    return [
        (each.detach().cpu().double(), other.detach())
        for each, other in zip((out, *gradients), (wanted, *exact_gradients), strict=True)
    ]


def strided_operands(device: torch.device) -> list[Pair]:
    """Operands as others leave them in memory, for an odd map."""
    x, offset, mask, weight, bias = draw((2, 20, 7, 5), 24)
    operands = [
        x.contiguous(memory_format=torch.channels_last),
        offset.transpose(2, 3).contiguous().transpose(2, 3),
        mask.repeat_interleave(2, dim=1)[:, ::2],
        weight.contiguous(memory_format=torch.channels_last),
        bias.repeat_interleave(2)[::2],
    ]
    return beside_torchvision(operands, device, 1)


def odd_offsets(device: torch.device) -> list[Pair]:
    """Every second location; exactly at -1, where the slope has two sides, and no numbers."""
    x, offset, mask, weight, bias = draw((3, 20, 7, 5), 24, stride=2, dtype=torch.float16)
    offset[0] = 0
    offset[1, ::5] = torch.nan
    offset[1, 1::5] = 1e9
    return beside_torchvision([x, offset, mask, weight, bias], device, 2)


def no_image(device: torch.device) -> list[Pair]:
    return beside_torchvision(draw((0, 4, 6, 6), 5), device, 1)


def many_tiles(device: torch.device) -> list[Pair]:
    """Two kernels; some tiles of locations and of both channels, none full; two shares."""
    tiles = triton_deform_conv.Tiles
    small = {
        "convolve": tiles(16, 16, 16, num_warps=1),
        "differentiate_samples": tiles(32, 16, 16, num_warps=1),
        "differentiate_kernel": tiles(16, 16, 32, num_warps=1),
    }
    by_products = {key: small[key[0]] for key in triton_deform_conv.TILES}
    with (
        mock.patch.dict(triton_deform_conv.TILES, by_products),
        mock.patch.object(triton_deform_conv, "MIN_LOCATIONS_PER_SHARE", 9),
    ):
        return two_kernels(device, [3, 18])


def two_kernels(device: torch.device, num_locations: list[int]) -> list[Pair]:
    total = sum(num_locations)
    operands = [
        torch.randn(total, 20).bfloat16(),
        torch.cat((2 * torch.randn(18, total), torch.rand(9, total))),
        *(torch.randn(18, 20, 3, 3).bfloat16() for _ in num_locations),
        *(torch.randn(18).bfloat16() for _ in num_locations),
    ]
    probe = torch.randn(total, 18).bfloat16()
    results = []
    for convolve, on, exact in (
        (triton_deform_conv.triton_conv, device, False),
        (gather_conv, torch.device("cpu"), True),
    ):
        leaves = [(x.double() if exact else x).to(on).requires_grad_() for x in operands]
        features, offsets_and_masks, *parameters = leaves
        size_hw = (total // 3, 3)
        grid = build_sampling_grid(
            1, size_hw, source_start=0, source_hw=size_hw, stride=1, device=on
        )
        out = convolve(
            features, offsets_and_masks, parameters[:2], parameters[2:], grid, num_locations
        )
        gradients = torch.autograd.grad(out, leaves, probe.to(out))
        results.append([each.detach().cpu().double() for each in (out, *gradients)])
    return list(zip(*results, strict=True))


def blocks(device: torch.device) -> list[Pair]:
    """DyHead's fast blocks, which replace what the kernels save, beside those by `gather`."""
    dyhead = DyHead(16, 2, zero_init_offsets=False)
    results = []
    x = torch.randn(1, 16, 5, 4)
    for backend, on in (("triton", device), ("gather", torch.device("cpu"))):
        dyhead.deform_backend = backend
        dyhead.to(on)
        levels = [x.to(on).requires_grad_()]
        attended = dyhead(levels)[0]
        leaves = [*levels, *dyhead.parameters()]
        gradients = torch.autograd.grad(attended.square().sum(), leaves)
        results.append([each.detach().cpu() for each in (attended, *gradients)])
    return list(zip(*results, strict=True))


# By the largest number, or one: float32 sums some hundred products, float16 and bfloat16 round
# samples and results to 11 and 8 bits.
CASES: dict[str, tuple[Callable[[torch.device], list[Pair]], float]] = {
    "strided operands, float32": (strided_operands, 2e-5),
    "odd offsets, float16": (odd_offsets, 2e-3),
    "many tiles, bfloat16": (many_tiles, 1.5e-2),
    "no image": (no_image, 0),
    "blocks, float32": (blocks, 2e-4),
}


def compare(case: str, device: torch.device) -> list[Pair]:
    """Compute a case on a device."""
    torch.manual_seed(0)
    return CASES[case][0](device)


if __name__ == "__main__":
    torch.save({case: compare(case, torch.device("cpu")) for case in CASES}, sys.argv[1])
