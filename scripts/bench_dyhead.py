"""What DyHead costs: backend against backend, a plain convolution and the bare matrix products.

    python scripts/bench_dyhead.py --quick
    OMP_WAIT_POLICY=PASSIVE python scripts/bench_dyhead.py --threads 2 --out bench

Writes a markdown table and a picture (cost against map size and batch). The contestants of a case
run in turn, round by round, and medians are compared, so a busy machine disturbs all alike; with
`--cpu-time` and one thread it hardly disturbs at all. The memory of each is measured in a process
of its own. On a busy machine set OMP_WAIT_POLICY=PASSIVE before Python starts: spinning threads
cost far more than the work.
"""

import argparse
import math
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from multiprocessing import get_context

import torch
import torch.nn.functional as F
import torchvision
from matplotlib.figure import Figure
from torch import Tensor

from dyhead_det.dyhead.head import DyHead
from dyhead_det.models.runtime import autocast
from dyhead_det.ops.deform_conv import DeformBackend, modulated_deform_conv2d
from dyhead_det.ops.gpu_choice import why_no_triton
from dyhead_det.ops.roi_align import roi_align
from measuring import (
    Cost,
    add_precision,
    machine,
    markdown,
    median_costs,
    option_parser,
    parse,
    peak_mib,
    precision,
)

NUM_LEVELS = 5
BASELINE: DeformBackend = "torchvision"

MODES = ("forward", "training")
ByMode = dict[str, float]

Run = Callable[[], Tensor | list[Tensor]]
Contestant = tuple[Run, list[Tensor]]
"""What computes forward, and the tensors that training differentiates by."""


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


def main() -> None:
    """Run all cases and write the table and the picture."""
    options = parse_options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    options.out.mkdir(parents=True, exist_ok=True)
    lines = [describe(device, options), ""]
    for case in table_cases(options.quick):
        seconds = measure_seconds(case, device, options)
        rows = table(case, seconds, measure_peaks(case, list(seconds), device, options.amp))
        lines += [*rows, ""]
        print("\n".join(rows), flush=True)
        # After every case: a long run that is stopped keeps what it measured.
        (options.out / "bench_dyhead.md").write_text("\n".join(lines), encoding="utf-8")
    draw(device, options)


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = option_parser(__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true", help="CPU seconds instead of the clock")
    add_precision(parser)
    options = parse(parser)
    if options.cpu_time and torch.device(options.device).type != "cpu":
        parser.error("--cpu-time tells nothing about a GPU")
    return options


def table_cases(quick: bool) -> list[Case]:
    """P3 of an 800 x 1216 image, a small map, and the blocks on the pyramids below them."""
    sizes = [(64, (32, 32))] if quick else [(64, (32, 32)), (128, (60, 80)), (256, (100, 152))]
    cases = [Case(kind, *size, batch=1) for kind in ("operator", "block") for size in sizes]
    extra = [Case("RoIAlign", *sizes[-1], batch=1)]
    if not quick:
        extra.append(Case("six blocks", *sizes[-1], batch=1))
    return [*cases, *extra]


def backends(device: torch.device) -> list[DeformBackend]:
    """Return what is compared on a device: Triton's kernels where they run."""
    compared: list[DeformBackend] = [BASELINE, "gather"]
    return compared if why_no_triton(device) else [*compared, "triton"]


def operator_contestants(case: Case, device: torch.device) -> dict[str, Contestant]:
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
        **{name: (partial(deform, name), everything) for name in backends(device)},
        "plain 3x3 convolution": (lambda: F.conv2d(x, weight, bias, padding=1), [x, weight, bias]),
        "bare matrix product": bare_products(b * h * w, c, device),
    }


def block_contestants(case: Case, device: torch.device) -> dict[str, Contestant]:
    """DyHead's blocks on a pyramid of five levels."""
    num_blocks = 6 if case.kind == "six blocks" else 1
    dyhead = DyHead(
        case.channels,
        num_blocks,
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

    locations = [x.shape[0] * x.shape[2] * x.shape[3] for x in levels]
    return {
        **{name: (partial(attend, name), everything) for name in backends(device)},
        # Every level from itself, and all but the first twice more.
        "bare matrix products": bare_products(
            num_blocks * (sum(locations) + 2 * sum(locations[1:])), case.channels, device
        ),
    }


def pooling_contestants(case: Case, device: torch.device) -> dict[str, Contestant]:
    """RoIAlign of 512 regions from one level, as Faster R-CNN's box head takes them."""
    b, c, (h, w) = case.batch, case.channels, case.size_hw
    x = torch.randn(b, c, h, w, device=device)
    channels_last = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    x.requires_grad_()
    corners = torch.rand(512, 2, device=device) * torch.tensor([w - 14, h - 14], device=device)
    sizes = 7 + 7 * torch.rand(512, 2, device=device)  # pixels of the level that suits a box
    image = torch.randint(b, (512, 1), device=device)
    regions = torch.cat((image, corners, corners + sizes), dim=1)
    return {
        BASELINE: (
            lambda: torchvision.ops.roi_align(x, regions, 7, spatial_scale=1.0, sampling_ratio=2),
            [x],
        ),
        "gather": (
            lambda: roi_align(
                channels_last,
                regions,
                (7, 7),
                spatial_scale=1.0,
                sampling_ratio=2,
                aligned=False,
            ),
            [channels_last],
        ),
    }


def bare_products(num_places: int, channels: int, device: torch.device) -> Contestant:
    """Multiply columns that are simply there: what no implementation can save."""
    part = torch.randn(min(num_places, 1024), 9 * channels, device=device, requires_grad=True)
    kernel = torch.randn(9 * channels, channels, device=device, requires_grad=True)
    num_parts = math.ceil(num_places / len(part))
    return lambda: [part @ kernel for _ in range(num_parts)], [part, kernel]


def measure_seconds(
    case: Case, device: torch.device, options: argparse.Namespace
) -> dict[str, ByMode]:
    """Let the contestants run in turn, in both modes; return the medians of each."""
    runs = {
        name: runs_by_mode(contestant, device, options.amp)
        for name, contestant in CONTESTANTS[case.kind](case, device).items()
    }
    seconds: dict[str, ByMode] = {name: {} for name in runs}
    for mode in MODES:
        contestants = {name: by_mode[mode] for name, by_mode in runs.items()}
        for warm_up in contestants.values():
            warm_up()
        for name, cost in median_costs(contestants, options.rounds).items():
            seconds[name][mode] = chosen_clock(cost, options)
    return seconds


def measure_peaks(
    case: Case, names: list[str], device: torch.device, amp: str
) -> dict[str, ByMode]:
    """Return the peak MiB of each contestant, by its name.

    On a CPU each has a process of its own: what others freed leaves holes in the heap, into which
    some sizes fit and others do not.
    """
    arguments = (repeat(case), names, repeat(device), repeat(amp), repeat(torch.get_num_threads()))
    if device.type == "cuda":
        return dict(zip(names, map(peaks_of, *arguments), strict=True))
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        return dict(zip(names, pool.map(peaks_of, *arguments), strict=True))


def peaks_of(case: Case, name: str, device: torch.device, amp: str, num_threads: int) -> ByMode:
    """Return the peak MiB of one contestant, by mode."""
    torch.set_num_threads(num_threads)
    torch.manual_seed(0)
    small = replace(case, channels=16, size_hw=(16, 16))
    for each in (small, case):  # the small one loads what has to be loaded
        runs = runs_by_mode(CONTESTANTS[case.kind](each, device)[name], device, amp)
        peaks = {mode: peak_mib(runs[mode], device) for mode in MODES}
    return peaks


def runs_by_mode(
    contestant: Contestant, device: torch.device, amp: str
) -> dict[str, Callable[[], None]]:
    """Return the runs of an inference and of a training step that end when the device does."""
    exact_forward, leaves = contestant

    def forward() -> Tensor | list[Tensor]:
        with autocast(amp, device):
            return exact_forward()

    return {
        "forward": finished(without_gradients(forward), device),
        "training": finished(with_gradients(forward, leaves), device),
    }


def chosen_clock(cost: Cost, options: argparse.Namespace) -> float:
    """Return the seconds that are asked for."""
    return cost.cpu_seconds if options.cpu_time else cost.seconds


def finished(run: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Return a run that ends when the device has done its work."""
    if device.type != "cuda":
        return run

    def run_to_the_end() -> None:
        torch.cuda.synchronize()
        run()
        torch.cuda.synchronize()

    return run_to_the_end


def without_gradients(forward: Run) -> Callable[[], None]:
    """Return the run of an inference."""

    def run() -> None:
        with torch.inference_mode():
            forward()

    return run


def with_gradients(forward: Run, leaves: list[Tensor]) -> Callable[[], None]:
    """Return the run of a training step's forward and backward."""

    def run() -> None:
        result = forward()
        outputs = [result] if isinstance(result, Tensor) else result
        probes = [torch.ones_like(x) for x in outputs]
        torch.autograd.grad(outputs, leaves, probes, allow_unused=True)

    return run


def table(case: Case, seconds: dict[str, ByMode], peaks: dict[str, ByMode]) -> list[str]:
    """Format one case: milliseconds, times faster than the baseline, memory."""
    columns = [case.title, "forward ms", "x", "training ms", "x", "forward MiB", "training MiB"]
    rows = []
    for name, by_mode in seconds.items():
        cells = [name]
        for mode in MODES:
            ratio = seconds[BASELINE][mode] / by_mode[mode]
            cells += [f"{1000 * by_mode[mode]:.1f}", f"{ratio:.1f}"]
        rows.append([*cells, *(f"{peaks[name][mode]:.0f}" for mode in MODES)])
    return markdown(columns, rows)


def describe(device: torch.device, options: argparse.Namespace) -> str:
    """Say what was measured on what."""
    gpu = f"{torch.cuda.get_device_name()}, " if device.type == "cuda" else ""
    clock = "CPU time" if options.cpu_time else "time"
    return (
        f"{gpu}{machine()}; {precision(options)}; {options.threads} threads; medians of "
        f"{options.rounds} interleaved rounds, {clock}; x = times faster than {BASELINE}."
    )


CONTESTANTS = {
    "operator": operator_contestants,
    "block": block_contestants,
    "six blocks": block_contestants,
    "RoIAlign": pooling_contestants,
}


def drawn_sizes(quick: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return sides of maps, and batches."""
    return ((16, 32, 64), (1, 2, 4)) if quick else ((16, 32, 64, 96, 128), (1, 2, 4, 8))


def draw(device: torch.device, options: argparse.Namespace) -> None:
    """Draw training time of one block against the number of positions, and against the batch."""
    sides, batches = drawn_sizes(options.quick)
    by_side = [Case("block", 64, (side, side), batch=1) for side in sides]
    by_batch = [Case("block", 64, (32, 32), batch=batch) for batch in batches]
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, cases, values, label in (
        (left, by_side, [side**2 for side in sides], "positions of the finest level"),
        (right, by_batch, batches, "images of 32 x 32"),
    ):
        measured = [measure_seconds(case, device, options) for case in cases]
        for name in measured[0]:
            times = [1000 * seconds[name]["training"] for seconds in measured]
            axes.loglog(values, times, marker="o", label=name)
        axes.set(xlabel=label, ylabel="ms, forward and backward", title="one block, 64 channels")
        axes.set_xticks(values, map(str, values))
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    lines = left.get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=len(lines[0]))
    figure.savefig(options.out / "bench_dyhead.png", dpi=120)


if __name__ == "__main__":
    main()
