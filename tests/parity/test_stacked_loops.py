"""The stacked DyHead equals the paper's equations 2 to 5 written as loops, values and gradients.

The reference shares no code with the package: one image, one location and one tap after the other,
in float64.
"""

import math

import pytest
import torch
from torch import Tensor

from dyhead_det.dyhead.stacked import StackedDyHead

ALL = ("scale", "spatial", "task")


def loop_read(x: Tensor, y: Tensor, x_: Tensor) -> Tensor:
    """Read one map (C, H, W) at one location, zero outside: (C,)."""
    height, width = x.shape[-2:]
    top, left = math.floor(y.item()), math.floor(x_.item())
    total = x.new_zeros(len(x))
    for row, row_weight in ((top, top + 1 - y), (top + 1, y - top)):
        for column, column_weight in ((left, left + 1 - x_), (left + 1, x_ - left)):
            if 0 <= row < height and 0 <= column < width:
                total = total + row_weight * column_weight * x[:, row, column]
    return total


def loop_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A plain 3x3 convolution of one map with padding 1."""
    height, width = x.shape[-2:]
    locations = []
    for h in range(height):
        for w in range(width):
            out = x.new_zeros(len(weight)) if bias is None else bias
            for i in range(3):
                for j in range(3):
                    if 0 <= h - 1 + i < height and 0 <= w - 1 + j < width:
                        out = out + weight[:, :, i, j] @ x[:, h - 1 + i, w - 1 + j]
            locations.append(out)
    return torch.stack(locations, dim=1).reshape(-1, height, width)


def loop_halve(x: Tensor) -> Tensor:
    """Average 2 x 2 pixels, or the one or two that are there."""
    height, width = x.shape[-2:]
    rows = []
    for h in range(0, height, 2):
        row = []
        for w in range(0, width, 2):
            pixels = [
                x[:, y, x_]
                for y in range(h, min(h + 2, height))
                for x_ in range(w, min(w + 2, width))
            ]
            row.append(sum(pixels) / len(pixels))
        rows.append(torch.stack(row, dim=1))
    return torch.stack(rows, dim=1)


def loop_enlarge(x: Tensor, height: int, width: int) -> Tensor:
    """Interpolate between the centers of pixels; beyond the outermost ones nothing changes."""
    h, w = x.shape[-2:]
    locations = []
    for row in range(height):
        y = min(max((row + 0.5) * h / height - 0.5, 0.0), h - 1.0)
        for column in range(width):
            x_ = min(max((column + 0.5) * w / width - 0.5, 0.0), w - 1.0)
            locations.append(loop_read(x, x.new_tensor(y), x.new_tensor(x_)))
    return torch.stack(locations, dim=1).reshape(-1, height, width)


def loop_group_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    groups = []
    for group in x.reshape(16, -1):
        centered = group - group.mean()
        groups.append(centered / torch.sqrt((centered**2).mean() + 1e-5))
    normed = torch.stack(groups).reshape(x.shape)
    return normed * weight[:, None, None] + bias[:, None, None]


def equation_3(levels: list[Tensor], p: dict[str, Tensor]) -> list[Tensor]:
    weighed = []
    for x in levels:
        pooled = x.sum(dim=(1, 2)) / (x.shape[1] * x.shape[2])
        f = p["scale.score.weight"][0] @ pooled + p["scale.score.bias"][0]
        sigma = torch.clamp((f + 1) / 2, min=0.0, max=1.0)
        weighed.append(sigma * x)
    return weighed


def equation_4(levels: list[Tensor], p: dict[str, Tensor]) -> list[Tensor]:
    median = levels[(len(levels) - 1) // 2]
    height, width = median.shape[-2:]
    is_deformable = "spatial.offset_and_mask.weight" in p
    if is_deformable:
        chosen = loop_conv(
            median, p["spatial.offset_and_mask.weight"], p["spatial.offset_and_mask.bias"]
        )
    new_levels = []
    for level in range(len(levels)):
        neighbors = [other for other in (level - 1, level, level + 1) if 0 <= other < len(levels)]
        locations = []
        for h in range(height):
            for w in range(width):
                total = median.new_zeros(len(median))
                for other in neighbors:
                    kernel = p["spatial.weight"][other - level + 1]
                    for k in range(9):
                        dy = chosen[2 * k, h, w] if is_deformable else 0
                        dx = chosen[2 * k + 1, h, w] if is_deformable else 0
                        dm = 1 / (1 + torch.exp(-chosen[18 + k, h, w])) if is_deformable else 1
                        y = median.new_tensor(h - 1 + k // 3) + dy
                        x_ = median.new_tensor(w - 1 + k % 3) + dx
                        read = loop_read(levels[other], y, x_)
                        total = total + kernel[:, :, k // 3, k % 3] @ read * dm
                locations.append(total / len(neighbors))
        mean = torch.stack(locations, dim=1).reshape(-1, height, width)
        new_levels.append(loop_group_norm(mean, p["spatial.norm.weight"], p["spatial.norm.bias"]))
    return new_levels


def equation_5(levels: list[Tensor], p: dict[str, Tensor]) -> list[Tensor]:
    num_pixels = sum(x.shape[1] * x.shape[2] for x in levels)
    pooled = sum(x.sum(dim=(1, 2)) for x in levels) / num_pixels
    hidden = torch.clamp(p["task.squeeze.weight"] @ pooled + p["task.squeeze.bias"], min=0)
    raw = p["task.expand.weight"] @ hidden + p["task.expand.bias"]
    variance = ((raw - raw.mean()) ** 2).mean()
    normed = (raw - raw.mean()) / torch.sqrt(variance + 1e-5)
    normed = normed * p["task.norm.weight"] + p["task.norm.bias"]
    theta = 2 / (1 + torch.exp(-normed)) - 1
    a1, b1, a2, b2 = theta.reshape(4, -1, 1, 1)
    return [torch.maximum((1 + a1) * x + b1 / 2, a2 * x + b2 / 2) for x in levels]


def loop_dyhead(levels: list[Tensor], blocks: list[dict[str, Tensor]], scale: Tensor | float):
    """One image: levels (C, H_l, W_l)."""
    median = (len(levels) - 1) // 2
    attended = []
    for level, x in enumerate(levels):
        for _ in range(median - level):
            x = loop_halve(x)
        if level > median:
            x = loop_enlarge(x, *levels[median].shape[-2:])
        attended.append(x)
    for p in blocks:
        if "scale.score.weight" in p:
            attended = equation_3(attended, p)
        if "spatial.weight" in p:
            attended = equation_4(attended, p)
        if "task.squeeze.weight" in p:
            attended = equation_5(attended, p)
    result = []
    for level, change in enumerate(attended):
        for _ in range(level - median):
            change = loop_halve(change)
        if level < median:
            change = loop_enlarge(change, *levels[level].shape[-2:])
        result.append(levels[level] + scale * change)
    return result


def lively_dyhead(
    num_blocks: int, *, attention=ALL, spatial="deform", dynamic_relu="channel", residual=True
) -> StackedDyHead:
    """A head whose offsets leave the map and whose gates, norms and scales are not at rest."""
    dyhead = StackedDyHead(
        16,
        num_blocks,
        attention=attention,
        spatial=spatial,
        dynamic_relu=dynamic_relu,
        zero_init_offsets=False,
        residual=residual,
        residual_scale=0.3,
        deform_backend="auto",
    ).double()
    with torch.no_grad():
        for name, parameter in dyhead.named_parameters():
            spread = 0.3 if "offset" in name or "norm" in name or "scale" in name else 0.1
            parameter.add_(spread * torch.randn_like(parameter))
    return dyhead


@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        ([(5, 3), (3, 2), (2, 1)], {}),
        ([(3, 2), (2, 1)], {"residual": False}),
        ([(4, 3)], {}),
        ([(5, 3), (3, 2), (2, 1)], {"spatial": "conv"}),
        ([(5, 3), (3, 2), (2, 1)], {"dynamic_relu": "shared"}),
        ([(5, 3), (3, 2), (2, 1), (1, 1)], {"attention": ("spatial",)}),
        ([(9, 11), (5, 6), (3, 3), (2, 2), (1, 1)], {"attention": ("task", "scale")}),
    ],
    ids=lambda value: str(value),
)
def test_two_blocks_equal_the_equations_in_values_and_all_gradients(sizes, options) -> None:
    torch.manual_seed(0)
    dyhead = lively_dyhead(2, **options)
    levels = [torch.randn(2, 16, *size, dtype=torch.double) for size in sizes]
    ours = [x.clone().requires_grad_() for x in levels]
    theirs = [x.clone().requires_grad_() for x in levels]

    outputs = dyhead(ours)
    blocks = [dict(block.named_parameters()) for block in dyhead.blocks]
    scale = 1.0 if dyhead.residual_scale is None else dyhead.residual_scale[:, None, None]
    expected = [loop_dyhead([x[image] for x in theirs], blocks, scale) for image in range(2)]

    batched = [torch.stack(maps) for maps in zip(*expected, strict=True)]
    for got, wanted in zip(outputs, batched, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)
    probes = [torch.randn_like(x) for x in outputs]
    gradients = torch.autograd.grad(outputs, [*ours, *dyhead.parameters()], probes)
    wanted_gradients = torch.autograd.grad(batched, [*theirs, *dyhead.parameters()], probes)
    for got, wanted in zip(gradients, wanted_gradients, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-8)
