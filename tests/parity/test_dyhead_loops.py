"""DyHead equals a reference in loops over images, locations and taps, values and gradients.

The reference shares no code with the package: it follows the published description of the block,
one scalar location after the other, in float64.
"""

import math

import pytest
import torch
from torch import Tensor

from dyhead_det.dyhead.head import DyHead

BACKENDS = ["torchvision", "gather", "reference"]
SIZES = [(4, 3), (2, 2), (1, 1)]


def loop_bilinear(x: Tensor, y: Tensor, x_: Tensor) -> Tensor:
    """Read one map (C, H, W) at one location: (C,)."""
    height, width = x.shape[-2:]
    if not (-1 < y.item() < height and -1 < x_.item() < width):
        return x.new_zeros(len(x))
    top, left = math.floor(y.item()), math.floor(x_.item())
    total = x.new_zeros(len(x))
    for row, row_weight in ((top, top + 1 - y), (top + 1, y - top)):
        for column, column_weight in ((left, left + 1 - x_), (left + 1, x_ - left)):
            if 0 <= row < height and 0 <= column < width:
                total = total + row_weight * column_weight * x[:, row, column]
    return total


def loop_deform_conv(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, stride: int
) -> Tensor:
    """One image: x (C, H, W), offset (18, h, w), mask (9, h, w)."""
    height, width = offset.shape[-2:]
    locations = []
    for h in range(height):
        for w in range(width):
            out = bias
            for i in range(3):
                for j in range(3):
                    tap = 3 * i + j
                    y = h * stride - 1 + i + offset[2 * tap, h, w]
                    x_ = w * stride - 1 + j + offset[2 * tap + 1, h, w]
                    read = mask[tap, h, w] * loop_bilinear(x, y, x_)
                    out = out + weight[:, :, i, j] @ read
            locations.append(out)
    return torch.stack(locations, dim=1).reshape(-1, height, width)


def loop_group_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    groups = []
    for group in x.reshape(16, -1):
        centered = group - group.mean()
        groups.append(centered / torch.sqrt((centered**2).mean() + 1e-5))
    normed = torch.stack(groups).reshape(x.shape)
    return normed * weight[:, None, None] + bias[:, None, None]


def loop_upsample(x: Tensor, height: int, width: int) -> Tensor:
    """Bilinear, corner pixels on corner pixels."""
    h, w = x.shape[-2:]
    rows = []
    for row in range(height):
        y = x.new_tensor(row * (h - 1) / (height - 1) if height > 1 else 0.0)
        for column in range(width):
            x_ = x.new_tensor(column * (w - 1) / (width - 1) if width > 1 else 0.0)
            rows.append(loop_bilinear(x, y, x_))
    return torch.stack(rows, dim=1).reshape(-1, height, width)


def hard_sigmoid(x: Tensor) -> Tensor:
    return (x + 3).clamp(0, 6) / 6


def coarse(values: Tensor, h: int, w: int, rule: str) -> Tensor:
    """Offsets or masks (K, H, W) for the coarser grid h x w."""
    if rule == "cropped":
        return values[:, :h, :w]
    if rule == "resized":
        # Shrinking reads between pixels in the same way as enlarging.
        return loop_upsample(values, h, w)
    kept = [values.reshape(-1)[index] for index in range(len(values) * h * w)]
    return torch.stack(kept).reshape(-1, h, w)


def loop_halve(x: Tensor) -> Tensor:
    """Average 2 x 2 pixels, or the one or two that are there."""
    rows = []
    for h in range(0, x.shape[1], 2):
        pixels = [x[:, h : h + 2, w : w + 2] for w in range(0, x.shape[2], 2)]
        rows.append(torch.stack([p.sum(dim=(1, 2)) / p[0].numel() for p in pixels], dim=1))
    return torch.stack(rows, dim=1)


def loop_candidates(
    levels: list[Tensor], level: int, p: dict[str, Tensor], rule: str
) -> list[Tensor]:
    """One image: what a level sees of itself, the finer and the coarser one; what is not in ``p``
    is switched off."""
    x = levels[level]
    finer = levels[level - 1] if level > 0 else None
    coarser = levels[level + 1] if level + 1 < len(levels) else None
    if "same.weight" not in p and "scale.score.weight" not in p:
        return [x]
    if "same.weight" not in p:
        halved = [] if finer is None else [loop_halve(finer)]
        return [x, *halved, *([] if coarser is None else [loop_upsample(coarser, *x.shape[-2:])])]

    def convolve(name: str, x: Tensor, offset: Tensor, mask: Tensor, stride: int) -> Tensor:
        out = loop_deform_conv(x, offset, mask, p[f"{name}.weight"], p[f"{name}.bias"], stride)
        return loop_group_norm(out, p[f"{name}.norm.weight"], p[f"{name}.norm.bias"])

    # A plain convolution is one with no offsets and all masks one.
    mask, offset = x.new_ones(9, *x.shape[-2:]), x.new_zeros(18, *x.shape[-2:])
    if "offset_and_mask.weight" in p:
        om = loop_deform_conv(
            x, offset, mask, p["offset_and_mask.weight"], p["offset_and_mask.bias"], 1
        )
        offset, mask = om[:18], 1 / (1 + torch.exp(-om[18:]))
    candidates = [convolve("same", x, offset, mask, 1)]
    if finer is not None:
        candidates.append(convolve("finer", finer, offset, mask, 2))
    if coarser is not None:
        size = coarser.shape[-2:]
        offset, mask = coarse(offset, *size, rule), coarse(mask, *size, rule)
        seen = convolve("coarser", coarser, offset, mask, 1)
        candidates.append(loop_upsample(seen, *x.shape[-2:]))
    return candidates


def loop_block(levels: list[Tensor], p: dict[str, Tensor], rule: str) -> list[Tensor]:
    """One image: levels (C, H, W)."""
    new_levels = []
    for level, x in enumerate(levels):
        candidates = loop_candidates(levels, level, p, rule)
        fused = torch.zeros_like(x)
        for candidate in candidates:
            gate = x.new_ones(1)
            if "scale.score.weight" in p:
                score = p["scale.score.weight"][0] @ candidate.mean(dim=(1, 2))
                gate = hard_sigmoid((score + p["scale.score.bias"]).clamp(min=0))
            fused = fused + gate * candidate / len(candidates)
        if "task.squeeze.weight" in p:
            hidden = p["task.squeeze.weight"] @ fused.mean(dim=(1, 2)) + p["task.squeeze.bias"]
            theta = hard_sigmoid(
                p["task.expand.weight"] @ hidden.clamp(min=0) + p["task.expand.bias"]
            ).reshape(4, -1, 1, 1)
            first = fused * ((theta[0] - 0.5) * 2 + 1) + theta[1] - 0.5
            second = fused * ((theta[2] - 0.5) * 2) + theta[3] - 0.5
            fused = torch.maximum(first, second)
        new_levels.append(fused)
    return new_levels


def lively_dyhead(
    num_blocks: int,
    rule: str,
    *,
    attention: tuple[str, ...] = ("scale", "spatial", "task"),
    spatial: str = "deform",
    dynamic_relu: str = "channel",
) -> DyHead:
    """A DyHead whose offsets leave the map and whose gates, norms and scales are not at rest."""
    dyhead = DyHead(
        16,
        num_blocks,
        attention=attention,
        spatial=spatial,
        dynamic_relu=dynamic_relu,
        coarse_offsets=rule,
        zero_init_offsets=False,
        residual=False,
        residual_scale=0.0,
        deform_backend="auto",
    ).double()
    with torch.no_grad():
        for name, parameter in dyhead.named_parameters():
            spread = 0.3 if "offset" in name or "norm" in name or "scale" in name else 0.1
            parameter.add_(spread * torch.randn_like(parameter))
    return dyhead


def loop_dyhead(dyhead: DyHead, levels: list[Tensor], rule: str) -> list[Tensor]:
    """All blocks, image by image: levels (B, C, H, W)."""
    images = [[x[image] for x in levels] for image in range(len(levels[0]))]
    for block in dyhead.blocks:
        parameters = dict(block.named_parameters())
        images = [loop_block(image, parameters, rule) for image in images]
    return [torch.stack(maps) for maps in zip(*images, strict=True)]


@pytest.mark.parametrize("rule", ["resized", "flattened", "cropped"])
def test_two_blocks_equal_the_loops_in_values_and_all_gradients(rule: str) -> None:
    torch.manual_seed(0)
    dyhead = lively_dyhead(2, rule)
    levels = [torch.randn(2, 16, *size, dtype=torch.double, requires_grad=True) for size in SIZES]
    inputs = [*levels, *dyhead.parameters()]

    expected = loop_dyhead(dyhead, levels, rule)
    probes = [torch.randn_like(x) for x in expected]
    expected_gradients = torch.autograd.grad(expected, inputs, probes)

    for backend in BACKENDS:
        dyhead.deform_backend = backend
        outputs = dyhead(levels)
        torch.testing.assert_close(outputs, expected, rtol=1e-9, atol=1e-9)
        # torch's hardsigmoid differentiates with a sixth rounded to float32.
        gradients = torch.autograd.grad(outputs, inputs, probes)
        torch.testing.assert_close(gradients, expected_gradients, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"attention": ("scale",)},
        {"attention": ("spatial",)},
        {"attention": ("task",)},
        {"attention": ("task", "scale")},
        {"attention": ("spatial", "task")},
        {"spatial": "conv"},
        {"dynamic_relu": "shared"},
    ],
    ids=str,
)
def test_every_variant_equals_the_loops_in_values_and_all_gradients(options: dict) -> None:
    torch.manual_seed(0)
    dyhead = lively_dyhead(2, "resized", **options)
    levels = [
        torch.randn(1, 16, *size, dtype=torch.double, requires_grad=True)
        for size in [(5, 3), (3, 2), (2, 1)]
    ]
    inputs = [*levels, *dyhead.parameters()]
    expected = loop_dyhead(dyhead, levels, "resized")
    probes = [torch.randn_like(x) for x in expected]
    expected_gradients = torch.autograd.grad(expected, inputs, probes)
    for backend in ("torchvision", "gather"):
        dyhead.deform_backend = backend
        outputs = dyhead(levels)
        torch.testing.assert_close(outputs, expected, rtol=1e-9, atol=1e-9)
        gradients = torch.autograd.grad(outputs, inputs, probes)
        torch.testing.assert_close(gradients, expected_gradients, rtol=1e-6, atol=1e-6)
