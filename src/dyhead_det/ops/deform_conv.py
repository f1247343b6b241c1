"""Modulated deformable 3x3 convolution: one signature, several implementations of one formula.

For output location (h, w) and tap t = 3 i + j (kernel row i, column j) the convolution samples

    mask_t * bilinear(x; h * stride - 1 + i + dy_t, w * stride - 1 + j + dx_t)

and multiplies what it sampled with an ordinary 3x3 kernel (Zhu et al., arXiv 1811.11168, equation
1; padding 1, dilation 1, one group of offsets). The map counts as zero outside its borders.

* ``gather``: gathered features (`gather/deform_conv.py`); several times faster on CPU, any
  precision.
* ``triton``: the same on a GPU as fused kernels (`triton/deform_conv.py`); float32 and half
  precision. Compared with ``torchvision`` at its first use in a process (`gpu_choice.py`).
* ``torchvision``: the stock operator; computes in float32 or float64 only.
* ``reference``: the formula in plain torch, to read and to compare with.
* ``grid_sample``: PyTorch's sampler and an ordinary convolution, for exports to programs that know
  no deformable convolution; slow, and where a location lies on a pixel to the digit, its gradient
  may be that of either side.
* ``auto``: on a CPU ``gather``. On a GPU the faster of ``triton`` and ``gather``, by a short trial,
  and for a single convolution of float32 maps ``torchvision``, where that is the fastest or Triton
  is not there. Where bits have to be equal from run to run, ``gather`` (on CUDA the gradients of
  the other two are added in any order).
"""

from functools import cache, partial
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import deform_conv2d

from dyhead_det.ops.gather.deform_conv import (
    FeatureConv,
    convolve_maps,
    exact_dtype,
    gather_conv,
    gather_deform_conv2d,
    product_dtype,
)
from dyhead_det.ops.gpu_choice import (
    GpuChooser,
    choices_path,
    is_interpreted,
    require_triton,
    why_no_triton,
)
from dyhead_det.ops.gpu_trials import Convolution, Workload, find_problem, milliseconds

DeformBackend = Literal["auto", "torchvision", "gather", "triton", "reference", "grid_sample"]


def modulated_deform_conv2d(
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    stride: int,
    backend: DeformBackend,
) -> Tensor:
    """Convolve at learned sampling locations, each weighed by its mask.

    Under autocast and for half precision maps the sampling locations are still float32: in half
    precision a coordinate of some hundred pixels would be off by a good part of a pixel.

    Args:
        x: maps sampled, (B, C, H, W).
        offset: (dy, dx) of the nine taps, row by row, in pixels of ``x``,
            (B, 18, ceil(H / stride), ceil(W / stride)).
        mask: weight of each tap, (B, 9, ceil(H / stride), ceil(W / stride)).
        weight: kernel, (C_out, C, 3, 3).
        bias: (C_out,).
        stride: 1 or 2.
        backend: which implementation computes it.

    Returns:
        (B, C_out, ceil(H / stride), ceil(W / stride)), in the type of ``x``.

    Raises:
        ValueError: shapes that do not belong together, or an unknown backend.
        ConfigError: ``triton`` where it cannot run.
    """
    out_hw = [-(-size // stride) for size in x.shape[-2:]]
    batch = x.shape[0]  # `len` would make a number of it where sizes are symbols
    expected = [(batch, 18, *out_hw), (batch, 9, *out_hw)]
    if [tuple(offset.shape), tuple(mask.shape)] != expected:
        raise ValueError(
            f"offset and mask for a map {tuple(x.shape)} read with stride {stride} have the shapes "
            f"{expected[0]} and {expected[1]}, got {tuple(offset.shape)} and {tuple(mask.shape)}"
        )
    coordinate_dtype = exact_dtype(x.dtype)
    chosen = resolve_backend(backend, x)
    convolve = CONVOLUTIONS[chosen]
    dtype = coordinate_dtype if feature_conv(chosen) is None else product_dtype(x)
    with torch.autocast(x.device.type, enabled=False):
        convolved = convolve(
            x.to(dtype),
            offset.to(coordinate_dtype),
            mask.to(coordinate_dtype),
            weight.to(dtype),
            bias.to(dtype),
            stride=stride,
        )
        return convolved.to(x.dtype)


def resolve_backend(
    backend: DeformBackend, x: Tensor, *, by_features: bool = False
) -> DeformBackend:
    """Turn ``auto`` into the backend that suits the maps ``x``, and ``triton`` into one that works.

    Args:
        backend: what was asked for.
        x: (B, C, H, W).
        by_features: whether ``auto`` means only those that convolve features (`feature_conv`): with
            them a whole block of DyHead is faster, also where a single convolution is not.

    Raises:
        ValueError: no such backend.
        ConfigError: ``triton`` where it cannot run.
    """
    check_backend(backend)
    if backend not in ("auto", "triton"):
        return backend
    dtype = product_dtype(x)
    is_half = dtype in (torch.float16, torch.bfloat16)
    has_equal_bits = torch.are_deterministic_algorithms_enabled()
    is_by_features = by_features or is_half
    is_gathered = is_by_features or has_equal_bits or x.device.type == "cpu"
    without_triton: DeformBackend = "gather" if is_gathered else "torchvision"
    if backend == "triton":
        require_triton(x.device)
        if is_interpreted() or x.numel() == 0:
            return "triton"
        is_right = _gpu_chooser().is_triton_right(Workload.of(x, dtype))
        return "triton" if is_right else without_triton
    if has_equal_bits or not _can_be_tried(x) or why_no_triton(x.device) is not None:
        return without_triton
    others = ("gather",) if is_by_features else ("torchvision", "gather")
    chosen = _gpu_chooser().fastest(Workload.of(x, dtype), others, fallback=without_triton)
    return cast("DeformBackend", chosen)


def _can_be_tried(x: Tensor) -> bool:
    """Tell whether kernels may be run now to see which is fastest for these maps."""
    is_traced = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    is_eager = type(x) is Tensor and not is_traced
    is_on_gpu = x.device.type == "cuda" and x.numel() > 0 and x.dtype != torch.float64
    return is_eager and is_on_gpu and not torch.cuda.is_current_stream_capturing()


@cache
def _gpu_chooser() -> GpuChooser:
    """Return the one of this process, which remembers what it has tried."""

    def milliseconds_of(backend: str, workload: Workload) -> float:
        return milliseconds(CONVOLUTIONS[backend], workload)

    compare = partial(find_problem, _convolve_by_triton, _convolve_by_torchvision)
    return GpuChooser(compare, milliseconds_of, choices_path())


def feature_conv(backend: DeformBackend) -> FeatureConv | None:
    """Return what convolves features of several maps at once; None if a backend takes maps only."""
    if backend == "triton":
        from dyhead_det.ops.triton.deform_conv import triton_conv  # noqa: PLC0415 - when it is used

        return triton_conv
    return gather_conv if backend == "gather" else None


def check_backend(backend: str) -> None:
    """Refuse a backend that does not exist.

    Raises:
        ValueError: naming those that do.
    """
    known = get_args(DeformBackend)
    if backend not in known:
        raise ValueError(f"deform backend {backend!r}; one of {', '.join(known)}")


def _convolve_by_triton(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, *, stride: int
) -> Tensor:
    convolve = cast("FeatureConv", feature_conv("triton"))
    return convolve_maps(convolve, x, offset, mask, weight, bias, stride=stride)


def _convolve_by_torchvision(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, *, stride: int
) -> Tensor:
    # The operator reads wild memory at a location that is not a number, and ends the process.
    defined = offset.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    convolved: Tensor = deform_conv2d(x, defined, weight, bias, stride=stride, padding=1, mask=mask)
    return convolved


def _convolve_by_the_formula(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, *, stride: int
) -> Tensor:
    height, width = offset.shape[-2:]
    row = stride * torch.arange(height, dtype=x.dtype, device=x.device)[:, None]
    column = stride * torch.arange(width, dtype=x.dtype, device=x.device)
    taps = []
    for tap in range(9):
        i, j = divmod(tap, 3)
        sampled_y = row - 1 + i + offset[:, 2 * tap]  # (B, H', W')
        sampled_x = column - 1 + j + offset[:, 2 * tap + 1]
        taps.append(mask[:, None, tap] * sample_bilinear(x, sampled_y, sampled_x))
    stacked = torch.stack(taps, dim=2)  # (B, C, 9, H', W')
    return torch.einsum("oct,bcthw->bohw", weight.flatten(2), stacked) + bias[:, None, None]


def sample_bilinear(x: Tensor, sampled_y: Tensor, sampled_x: Tensor) -> Tensor:
    """Read maps between their pixels; outside its borders a map is zero.

    The derivative at a whole coordinate is the one to the right, as in torchvision's operator (the
    authors' code differs in one case that matters for zeroed offsets only: exactly at -1 it has 0).

    Args:
        x: maps, (B, C, H, W).
        sampled_y: rows to read, (B, H', W').
        sampled_x: columns to read, (B, H', W').

    Returns:
        (B, C, H', W').
    """
    height, width = x.shape[-2:]
    # A border of zeros, one pixel before and two behind, holds all neighbors of what is in [-1, H).
    padded = F.pad(x, (1, 2, 1, 2)).flatten(2)  # (B, C, (H + 3) * (W + 3))
    y = torch.where((sampled_y >= -1) & (sampled_y < height), sampled_y, -1) + 1
    x_ = torch.where((sampled_x >= -1) & (sampled_x < width), sampled_x, -1) + 1
    top, left = y.detach().floor(), x_.detach().floor()
    down, right = y - top, x_ - left

    def neighbor(neighbor_y: Tensor, neighbor_x: Tensor) -> Tensor:
        index = (
            (neighbor_y * (width + 3) + neighbor_x).long().flatten(1)[:, None]
        )  # (B, 1, H' * W')
        values = padded.gather(2, index.expand(-1, x.shape[1], -1))  # (B, C, H' * W')
        return values.view(*x.shape[:2], *sampled_y.shape[1:])

    weights = (down[:, None], right[:, None])
    return (
        neighbor(top, left) * (1 - weights[0]) * (1 - weights[1])
        + neighbor(top, left + 1) * (1 - weights[0]) * weights[1]
        + neighbor(top + 1, left) * weights[0] * (1 - weights[1])
        + neighbor(top + 1, left + 1) * weights[0] * weights[1]
    )


def _convolve_by_grid_sample(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, *, stride: int
) -> Tensor:
    in_hw, (height, width) = x.shape[-2:], offset.shape[-2:]
    taps = torch.arange(9, dtype=x.dtype, device=x.device)[:, None]
    starts = (torch.div(taps, 3, rounding_mode="floor") - 1, taps.remainder(3) - 1)
    row = stride * torch.arange(height, dtype=x.dtype, device=x.device)
    column = stride * torch.arange(width, dtype=x.dtype, device=x.device)
    locations = (row[:, None].expand(height, width), column.expand(height, width))
    coordinates = []
    for axis in (1, 0):  # the sampler takes x before y
        moved = offset.flatten(2)[:, axis::2]  # (B, 9, H' * W')
        sampled = locations[axis].flatten() + starts[axis] + moved
        size = in_hw[axis]
        sampled = torch.where((sampled >= -1) & (sampled < size), sampled, -1)
        coordinates.append((2 * sampled + 1) / size - 1)  # -1 and 1 are the outer edges
    read = F.grid_sample(x, torch.stack(coordinates, dim=3), align_corners=False)
    weighed = read * mask.flatten(2)[:, None]  # (B, C, 9, H' * W')
    return F.conv2d(weighed, weight.flatten(2)[..., None], bias).view(
        x.shape[0], weight.shape[0], height, width
    )


CONVOLUTIONS: dict[str, Convolution] = {
    "triton": _convolve_by_triton,
    "gather": gather_deform_conv2d,
    "torchvision": _convolve_by_torchvision,
    "reference": _convolve_by_the_formula,
    "grid_sample": _convolve_by_grid_sample,
}
