"""What DyHead costs: backend against backend, a plain convolution and the bare matrix products.

    python scripts/bench_dyhead.py --quick
    OMP_WAIT_POLICY=PASSIVE python scripts/bench_dyhead.py --threads 2 --out runs/bench

Writes a markdown table and a picture (cost against map size and batch). The contestants of a case
run in turn, round by round, and medians are compared, so a busy machine disturbs all alike; with
`--cpu-time` and one thread it hardly disturbs at all. On a busy machine set
OMP_WAIT_POLICY=PASSIVE before Python starts: spinning threads cost far more than the work.
"""

import argparse
import ctypes
import gc
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from matplotlib.figure import Figure
from torch import Tensor

from dyhead_det.layers.deform_conv import DeformBackend, modulated_deform_conv2d
from dyhead_det.layers.dyhead import DyHead

NUM_LEVELS = 5
BASELINE = "torchvision"

Run = Callable[[], Tensor | list[Tensor] | None]


@dataclass(frozen=True)
class Case:
    """One thing to compute: the operator on a map, or a block on the pyramid below that map."""

    kind: str
    channels: int
    size_hw: tuple[int, int]
    batch: int

    @property
    def title(self) -> str:
        """Name for the table."""
        height, width = self.size_hw
        return f"{self.kind}, {self.channels} channels, {self.batch} x {height} x {width}"


@dataclass
class Result:
    """Seconds of all rounds and peak MiB of one contestant, by mode (forward, training)."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    peak_mib: dict[str, float] = field(default_factory=dict)

    def median(self, mode: str) -> float:
        """Median seconds."""
        return statistics.median(self.seconds[mode])


def main() -> None:
    """Run all cases and write the table and the picture."""
    options = parse_options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    options.out.mkdir(parents=True, exist_ok=True)
    lines = [describe(device, options), ""]
    for case in table_cases(options.quick):
        results = measure(case, device, options)
        lines += [*markdown(case, results), ""]
        print("\n".join(lines[-len(results) - 5 :]), flush=True)
        # After every case: a long run that is stopped keeps what it measured.
        (options.out / "bench_dyhead.md").write_text("\n".join(lines), encoding="utf-8")
    draw(device, options)
    print(f"table and picture in {options.out}")


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small maps, three rounds")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, help="default: 7, quick 3")
    parser.add_argument("--cpu-time", action="store_true", help="CPU seconds instead of the clock")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 7)
    if options.cpu_time and torch.device(options.device).type != "cpu":
        parser.error("--cpu-time tells nothing about a GPU")
    return options


def table_cases(quick: bool) -> list[Case]:
    """P3 of an 800 x 1216 image, a small map, and the blocks on the pyramids below them."""
    sizes = [(64, (32, 32))] if quick else [(64, (32, 32)), (128, (60, 80)), (256, (100, 152))]
    return [Case(kind, *size, batch=1) for kind in ("operator", "block") for size in sizes]


def contestants(case: Case, device: torch.device) -> dict[str, tuple[Run, list[Tensor]]]:
    """Return for each contestant its forward and the tensors that training differentiates."""
    if case.kind == "operator":
        return operator_contestants(case, device)
    return block_contestants(case, device)


def operator_contestants(case: Case, device: torch.device) -> dict[str, tuple[Run, list[Tensor]]]:
    """One modulated deformable convolution, and what it would cost without deformation."""
    b, c, (h, w) = case.batch, case.channels, case.size_hw
    x, offset = torch.randn(b, c, h, w, device=device), torch.randn(b, 18, h, w, device=device)
    mask, bias = torch.rand(b, 9, h, w, device=device), torch.zeros(c, device=device)
    weight = torch.randn(c, c, 3, 3, device=device) / math.sqrt(9 * c)
    for each in (x, offset, mask, bias, weight):
        each.requires_grad_()

    def deform(backend: DeformBackend) -> Tensor:
        return modulated_deform_conv2d(x, offset, mask, weight, bias, stride=1, backend=backend)

    everything = [x, offset, mask, weight, bias]
    return {
        "torchvision": (lambda: deform("torchvision"), everything),
        "gather": (lambda: deform("gather"), everything),
        "plain 3x3 convolution": (lambda: F.conv2d(x, weight, bias, padding=1), [x, weight, bias]),
        "bare matrix product": bare_products(b * h * w, c, device),
    }


def block_contestants(case: Case, device: torch.device) -> dict[str, tuple[Run, list[Tensor]]]:
    """One DyHead block on a pyramid of five levels."""
    dyhead = DyHead(
        case.channels,
        1,
        attention=("scale", "spatial", "task"),
        spatial="deform",
        dynamic_relu="channel",
        coarse_offsets="resized",
        zero_init_offsets=False,
        residual=False,
        residual_scale=0.0,
        deform_backend="torchvision",
    ).to(device)
    levels = []
    size = case.size_hw
    for _ in range(NUM_LEVELS):
        levels.append(torch.randn(case.batch, case.channels, *size, device=device))
        size = (-(-size[0] // 2), -(-size[1] // 2))
    everything = [each.requires_grad_() for each in (*levels, *dyhead.parameters())]

    def attend(backend: DeformBackend) -> list[Tensor]:
        dyhead.deform_backend = backend
        return dyhead.forward(levels)

    places = [x.shape[0] * x.shape[2] * x.shape[3] for x in levels]
    return {
        "torchvision": (lambda: attend("torchvision"), everything),
        "gather": (lambda: attend("gather"), everything),
        # Every level from itself, and all but the first twice more.
        "bare matrix products": bare_products(
            sum(places) + 2 * sum(places[1:]), case.channels, device
        ),
    }


def bare_products(num_places: int, channels: int, device: torch.device) -> tuple[Run, list[Tensor]]:
    """Multiply columns that are simply there: what no implementation can save."""
    part = torch.randn(min(num_places, 1024), 9 * channels, device=device, requires_grad=True)
    kernel = torch.randn(9 * channels, channels, device=device, requires_grad=True)
    num_parts = math.ceil(num_places / len(part))
    return lambda: [part @ kernel for _ in range(num_parts)], [part, kernel]


def measure(case: Case, device: torch.device, options: argparse.Namespace) -> dict[str, Result]:
    """Let the contestants run in turn, in both modes."""
    results: dict[str, Result] = {}
    runs: dict[tuple[str, str], Run] = {}
    for name, (forward, leaves) in contestants(case, device).items():
        results[name] = Result()
        runs[name, "forward"] = without_gradients(forward)
        runs[name, "training"] = with_gradients(forward, leaves)
    for (name, mode), run in runs.items():
        results[name].peak_mib[mode] = peak_mib(run, device)  # also warms up
    for _ in range(options.rounds):
        for (name, mode), run in runs.items():
            elapsed = seconds(run, device, use_cpu_time=options.cpu_time)
            results[name].seconds.setdefault(mode, []).append(elapsed)
    return results


def without_gradients(forward: Run) -> Run:
    """Return the run of an inference."""

    def run() -> None:
        with torch.inference_mode():
            forward()

    return run


def with_gradients(forward: Run, leaves: list[Tensor]) -> Run:
    """Return the run of a training step's forward and backward."""

    def run() -> None:
        result = forward()
        outputs = [result] if isinstance(result, Tensor) else result or []
        probes = [torch.ones_like(x) for x in outputs]
        torch.autograd.grad(outputs, leaves, probes, allow_unused=True)

    return run


def seconds(run: Run, device: torch.device, *, use_cpu_time: bool) -> float:
    """Time one run."""
    clock = time.process_time if use_cpu_time else time.perf_counter
    if device.type == "cuda":
        torch.cuda.synchronize()
    started_at = clock()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - started_at


def peak_mib(run: Run, device: torch.device) -> float:
    """Return the memory a run needs beyond what was there; not a number where nobody counts it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        allocated = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - allocated) / 2**20
    if sys.platform != "linux":
        run()
        return math.nan
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak so far
    before = status_mib("VmRSS")
    run()
    return status_mib("VmHWM") - before


def status_mib(key: str) -> float:
    """Read one entry of this process's status, in MiB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    return math.nan


def markdown(case: Case, results: dict[str, Result]) -> list[str]:
    """Format one case: milliseconds, speed relative to the baseline, memory."""
    lines = [
        f"### {case.title}",
        "",
        "| | forward ms | x | training ms | x | forward MiB | training MiB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, result in results.items():
        cells = [name]
        for mode in ("forward", "training"):
            ratio = results[BASELINE].median(mode) / result.median(mode)
            cells += [f"{1000 * result.median(mode):.1f}", f"{ratio:.1f}"]
        cells += [f"{result.peak_mib[mode]:.0f}" for mode in ("forward", "training")]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def describe(device: torch.device, options: argparse.Namespace) -> str:
    """Say what was measured on what."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor()
    clock = "CPU time" if options.cpu_time else "time"
    return (
        f"{device.type} {name}, {options.threads} threads, torch {torch.__version__}, torchvision "
        f"{torchvision.__version__}; medians of {options.rounds} interleaved rounds, {clock}; "
        f"x = times faster than {BASELINE}."
    )


def draw(device: torch.device, options: argparse.Namespace) -> None:
    """Draw training time of one block against the number of places, and against the batch."""
    sides = (16, 32, 64) if options.quick else (16, 32, 64, 96, 128)
    batches = (1, 2, 4) if options.quick else (1, 2, 4, 8)
    by_side = [Case("block", 64, (side, side), batch=1) for side in sides]
    by_batch = [Case("block", 64, (32, 32), batch=batch) for batch in batches]
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, cases, values, label in (
        (left, by_side, [side**2 for side in sides], "places of the finest level"),
        (right, by_batch, batches, "images of 32 x 32"),
    ):
        measured = [measure(case, device, options) for case in cases]
        for name in measured[0]:
            times = [1000 * results[name].median("training") for results in measured]
            axes.loglog(values, times, marker="o", label=name)
        axes.set(xlabel=label, ylabel="ms, forward and backward", title="one block, 64 channels")
        axes.grid(alpha=0.3, which="both")
        axes.legend()
    figure.savefig(options.out / "bench_dyhead.png", dpi=120)


if __name__ == "__main__":
    main()
