"""A deformable convolution tried on the GPU at hand: is it right, and how long does it take.

Nothing of the caller's takes part: random numbers come from a generator of its own, and autocast,
inference mode and what keeps tensors for backward are left outside.
"""

import math
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

# Between the largest difference and the largest number. Half precision rounds to 11 (float16) or 8
# bits, TF32 to 11, and each result sums several such numbers.
TOLERANCES = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 4e-2}
TF32_TOLERANCE = 1e-2
SMALL_MAPS = (2, 11, 13)
MAX_LOCATIONS = 2**17
NUM_WARM_UPS, NUM_RUNS = 2, 5
RESULTS = ("output", "gradient of x", "of offsets", "of masks", "of weight", "of bias")


class Convolution(Protocol):
    """A backend of `modulated_deform_conv2d`, which says what is what."""

    def __call__(
        self, x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, *, stride: int
    ) -> Tensor:
        """Convolve."""


@dataclass(frozen=True)
class Workload:
    """What is about to be computed.

    Attributes:
        device: where.
        dtype: of maps and products.
        has_tf32: whether products of float32 may be rounded to TF32.
        channels: C, in and out.
        num_locations: of all images, a power of two near them.
        has_backward: whether gradients are wanted, too.
    """

    device: torch.device
    dtype: torch.dtype
    has_tf32: bool
    channels: int
    num_locations: int
    has_backward: bool

    @classmethod
    def of(cls, x: Tensor, dtype: torch.dtype) -> "Workload":
        """Describe maps (B, C, H, W), not empty, that are convolved in a type."""
        batch, channels, height, width = x.shape
        return cls(
            device=x.device,
            dtype=dtype,
            has_tf32=dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32,
            channels=channels,
            num_locations=min(2 ** round(math.log2(batch * height * width)), MAX_LOCATIONS),
            has_backward=torch.is_grad_enabled(),
        )


def find_problem(convolve: Convolution, reference: Convolution, workload: Workload) -> str | None:
    """Compare a convolution with another one in float32 on small maps, and gradients if wanted.

    Returns:
        What is wrong, or that it cannot be computed; None where all agrees.
    """
    with _on_its_own(workload):
        operands = _draw(workload, *SMALL_MAPS)
        expected = _run(reference, [each.float() for each in operands], workload)
        try:
            results = _run(convolve, operands, workload)
        except Exception as error:  # noqa: BLE001 - compilers and drivers fail in many ways
            return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        tolerance = TF32_TOLERANCE if workload.has_tf32 else TOLERANCES[workload.dtype]
        for name, got, wanted in zip(RESULTS, results, expected, strict=False):
            difference = ((got.float() - wanted).abs().max() / wanted.abs().max()).item()
            if not difference <= tolerance:  # not a number is wrong, too
                return f"{name} differs by {difference:.2g} of its largest number"
    return None


def milliseconds(convolve: Convolution, workload: Workload) -> float:
    """Return the median time of a convolution, with its gradients where these are wanted.

    A convolution that cannot be computed, for lack of memory for instance, takes forever.
    """
    with _on_its_own(workload):
        side = math.isqrt(workload.num_locations)
        operands = _draw(workload, 1, side, side)
        times = []
        try:
            for _ in range(NUM_WARM_UPS + NUM_RUNS):
                _wait_for(workload.device)
                started_at = time.perf_counter()
                _run(convolve, operands, workload)
                _wait_for(workload.device)
                times.append(1000 * (time.perf_counter() - started_at))
        except RuntimeError:
            return math.inf
    return statistics.median(times[NUM_WARM_UPS:])


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _on_its_own(workload: Workload) -> Iterator[None]:
    """Compute on a workload's device, whatever state the caller is in."""
    with (
        torch.cuda.device(workload.device if workload.device.type == "cuda" else -1),
        torch.autocast(workload.device.type, enabled=False),
        torch.inference_mode(False),
        torch.set_grad_enabled(workload.has_backward),
        # Hides the caller's hooks, as activation checkpointing has them.
        torch.autograd.graph.saved_tensors_hooks(lambda kept: kept, lambda kept: kept),
    ):
        yield


def _draw(workload: Workload, batch: int, height: int, width: int) -> list[Tensor]:
    """Draw x, offset, mask, weight and bias; offsets reach beyond every border."""
    generator = torch.Generator(workload.device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=workload.device)

    c = workload.channels
    drawn = [
        normal(batch, c, height, width).to(workload.dtype),
        2 * normal(batch, 18, height, width),
        normal(batch, 9, height, width).sigmoid(),
        (normal(c, c, 3, 3) / math.sqrt(9 * c)).to(workload.dtype),
        normal(c).to(workload.dtype),
    ]
    return [each.requires_grad_() for each in drawn]


def _run(convolve: Convolution, operands: list[Tensor], workload: Workload) -> tuple[Tensor, ...]:
    """Return the output and, where they are wanted, its gradients by all operands."""
    out = convolve(*operands, stride=1)
    if not workload.has_backward:
        return (out,)
    # Each location and channel counts differently; exact in any type.
    probe = torch.arange(out.numel(), device=out.device).remainder(7).sub(3).view_as(out)
    return (out, *torch.autograd.grad(out, operands, probe.to(out.dtype)))
