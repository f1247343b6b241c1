"""All that a machine with a GPU can tell about this package, as one report to send us.

    make gpu-check

Runs the tests marked `gpu`, the benchmarks in float32, TF32 and bfloat16 and a short training run,
compares and times the backends of the deformable convolution, and counts in a training step and an
inference of each detector how often the host waits for the GPU, how much memory they take and
which kernels they spend their time in. What fails is in the report too, and ends nothing. Where
there is no GPU it says what it would do.
"""

import argparse
import itertools
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

import bench_detector
from dyhead_det.files import written_whole
from dyhead_det.ops.deform_conv import CONVOLUTIONS
from dyhead_det.ops.gpu_choice import why_no_triton
from dyhead_det.ops.gpu_trials import Workload, find_problem, milliseconds
from measuring import machine, markdown

ROOT = Path(__file__).parents[1]
PRECISIONS = {"float32": (), "TF32": ("--tf32",), "bfloat16": ("--amp", "bf16")}
# What stands in the report of a command's output, from its end.
MAX_OUTPUT_LINES = 80
BACKEND_TYPES = (
    (torch.float32, False),
    (torch.float32, True),
    (torch.bfloat16, False),
    (torch.float16, False),
)
NUM_WARM_UPS = 3
NUM_KERNELS = 15


@dataclass(frozen=True)
class Part:
    """A command, and the files it writes that belong into the report."""

    title: str
    command: tuple[str, ...]
    results: tuple[Path, ...] = ()


def main() -> int:
    """Run all parts and write the report; 1 where a part failed."""
    options = parse_options()
    parts = planned_parts(options.out, options.quick)
    if not torch.cuda.is_available():
        print("There is no CUDA device. On a machine with one this would run:")
        for part in parts:
            print(f"  {part.title}: {' '.join(part.command)}")
        print(f"and write {options.out / 'gpu-report.md'}, with the waits, the memory and the")
        print("kernels of a step and of an inference of every detector.")
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    report = options.out / "gpu-report.md"
    lines = [f"# {torch.cuda.get_device_name()}", "", f"{machine()}, CUDA {torch.version.cuda}", ""]
    has_failed = False
    for part in parts:
        print(f"--- {part.title}", flush=True)
        result = run_part(part)
        has_failed |= result.returncode != 0
        lines += section_of(part, result)
        write(report, lines)
    print("--- Backends", flush=True)
    lines += compare_backends()
    write(report, lines)
    for case in bench_detector.QUICK_CASES if options.quick else bench_detector.CASES[:2]:
        print(f"--- {case.title}", flush=True)
        lines += inspect_detector(case)
        write(report, lines)
    print(f"{'something failed, see' if has_failed else 'all is well:'} {report}")
    return int(has_failed)


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="less of everything: some minutes")
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), help="folder for all files")
    options = parser.parse_args()
    options.out = options.out.resolve()  # the parts run in the project's root
    return options


def planned_parts(out: Path, quick: bool) -> list[Part]:
    """Return all commands, in their order."""
    python = sys.executable
    shorter = ("--quick",) if quick else ()
    parts = [
        Part("Tests", (python, "-m", "pytest", "-q", "-m", "gpu")),
        Part("Triton's kernels", (python, "scripts/triton_report.py")),
    ]
    for script in ("bench_dyhead", "bench_detector"):
        for name, switches in PRECISIONS.items():
            folder = out / name
            command = (python, f"scripts/{script}.py", "--device", "cuda", "--out", str(folder))
            parts.append(
                Part(
                    f"{script}, {name}",
                    (*command, *switches, *shorter),
                    (folder / f"{script}.md",),
                )
            )
    data, run = str(out / "demo"), unused(out / "run")
    cli = (python, "-m", "dyhead_det")
    training = ("configs/demo.yaml", "--set", f"data.root={data}", "--out", str(run))
    parts += [
        Part("Demo data", (*cli, "data", "demo", data)),
        Part("Training", (*cli, "train", *training, "--device", "cuda"), (run / "metrics.csv",)),
    ]
    return parts


def unused(folder: Path) -> Path:
    """Return a name for a folder that is not there: runs are trained into new ones."""
    numbered = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([folder], numbered) if not path.exists())


def run_part(part: Part) -> subprocess.CompletedProcess[str]:
    """Run a command from the project's root."""
    paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        part.command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def section_of(part: Part, result: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what a command has said and written, for the report."""
    ended = "done" if result.returncode == 0 else f"FAILED with exit code {result.returncode}"
    lines = [f"## {part.title}: {ended}", "", f"`{' '.join(part.command)}`", ""]
    said = [] if part.results and result.returncode == 0 else result.stdout.splitlines()
    if said:
        lines += ["```", *said[-MAX_OUTPUT_LINES:], "```", ""]
    for path in part.results:
        if path.exists():
            lines += [path.read_text(encoding="utf-8"), ""]
    return lines


def compare_backends() -> list[str]:
    """Return whether Triton's kernels compute what torchvision's operator does, and all times."""
    device = torch.device("cuda", torch.cuda.current_device())
    if problem := why_no_triton(device):
        return ["## Backends of the deformable convolution", "", f"No Triton: {problem}", ""]
    names = ("triton", "torchvision", "gather")
    rows = []
    for dtype, has_tf32 in BACKEND_TYPES:
        torch.backends.cuda.matmul.allow_tf32 = has_tf32
        for num_locations in (2**14, 2**17):
            workload = Workload(device, dtype, has_tf32, 256, num_locations, has_backward=True)
            difference = find_problem(CONVOLUTIONS["triton"], CONVOLUTIONS["torchvision"], workload)
            times = [
                # Torchvision's operator computes in float32 only.
                "-"
                if name == "torchvision" and dtype != torch.float32
                else f"{milliseconds(CONVOLUTIONS[name], workload):.2f}"
                for name in names
            ]
            kind = "TF32" if has_tf32 else str(dtype).removeprefix("torch.")
            rows.append([kind, str(num_locations), difference or "none", *times])
    torch.backends.cuda.matmul.allow_tf32 = False
    columns = ["256 channels", "locations", "Triton's fault", *(f"{name} ms" for name in names)]
    title = "## Backends of the deformable convolution, forward and backward"
    return [title, "", *markdown(columns, rows), ""]


def inspect_detector(case: bench_detector.Case) -> list[str]:
    """Return waits, memory, time and kernels of a detector with DyHead, and torchvision's."""
    device = torch.device("cuda")
    detectors = bench_detector.build_contestants(case, device, use_compile=False)
    images, targets = bench_detector.example(case, device)
    rows, kernels = [], []
    for name, detector in detectors.items():
        if name == bench_detector.BASELINE:
            continue
        for what, amp in (("step", "off"), ("step", "bf16"), ("inference", "off")):
            run = (
                bench_detector.training_step(detector, images, targets, amp)
                if what == "step"
                else lambda each=detector: bench_detector.infer(each, images, "off")
            )
            for _ in range(NUM_WARM_UPS):
                run()
            rows.append([f"{name}, {what}, amp {amp}", *(str(x) for x in measured(run))])
            if name == bench_detector.WITH_DYHEAD and amp == "off":
                kernels += [f"### Kernels, {what}", "", "```", kernel_times(run), "```", ""]
    columns = [case.title, "waits", "peak MiB", "ms"]
    return [f"## {case.title}", "", *markdown(columns, rows), "", *kernels]


def measured(run: Callable[[], object]) -> tuple[int, int, float]:
    """Return how often a run waits for the GPU, its peak of memory in MiB, and milliseconds."""
    with counted_waits() as waits:
        run()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    started_at = time.perf_counter()
    run()
    torch.cuda.synchronize()
    elapsed = time.perf_counter() - started_at
    return len(waits), round(torch.cuda.max_memory_allocated() / 2**20), round(1000 * elapsed, 1)


@contextmanager
def counted_waits() -> Iterator[list[warnings.WarningMessage]]:
    """Collect PyTorch's warnings of operations that wait for the GPU."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            waits: list[warnings.WarningMessage] = []
            yield waits
            waits += [each for each in seen if "synchroniz" in str(each.message)]
    finally:
        torch.cuda.set_sync_debug_mode("default")


def kernel_times(run: Callable[[], object]) -> str:
    """Return the kernels that a run spends its time in, as PyTorch's table."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize()
    table: str = profiler.key_averages().table(
        sort_by="self_cuda_time_total", row_limit=NUM_KERNELS, max_name_column_width=60
    )
    return table


def write(path: Path, lines: list[str]) -> None:
    """Write the report so far: a check that is stopped keeps what it has found."""
    with written_whole(path) as unfinished:
        unfinished.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
