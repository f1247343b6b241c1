"""What the benchmarks share: options, contestants in turn, medians, tables, pictures, the machine.

Contestants run round by round, one after the other, so that a busy machine disturbs all alike, and
medians are compared. CPU seconds count all threads and all processes that a run has waited for;
they hardly change when the machine is busy.
"""

import argparse
import ctypes
import gc
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dyhead_det.benchmark.machine import machine, status_mib
from dyhead_det.tables import markdown_table
from dyhead_det.visualize.bars import draw_bars

PRECISIONS = {"off": "float32", "bf16": "bfloat16", "fp16": "float16"}

__all__ = ["draw_bars", "machine"]  # from the package


@dataclass(frozen=True)
class Cost:
    """What one run took, by the clock and on the CPU."""

    seconds: float
    cpu_seconds: float


def option_parser(documentation: str) -> argparse.ArgumentParser:
    """Return a parser with the options of all benchmarks; `parse` reads them."""
    parser = argparse.ArgumentParser(
        description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="less of everything: a minute or two")
    parser.add_argument("--rounds", type=int, help="how often each contestant runs [5, quick 3]")
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder for the results")
    return parser


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Add the options that say in which numbers a model computes."""
    parser.add_argument("--amp", choices=PRECISIONS, default="off", help="mixed precision")
    parser.add_argument("--tf32", action="store_true", help="float32 products in TF32, on a GPU")


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the command line; with `add_precision` switch TF32."""
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 5)
    if "tf32" in options:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = options.tf32
    return options


def precision(options: argparse.Namespace) -> str:
    """Say in which numbers a model computes."""
    return "TF32" if options.tf32 and options.amp == "off" else PRECISIONS[options.amp]


def cost_of(run: Callable[[], object]) -> Cost:
    """Run once."""
    started_at, cpu_before = time.perf_counter(), _cpu_seconds()
    run()
    return Cost(time.perf_counter() - started_at, _cpu_seconds() - cpu_before)


def median_costs(contestants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Cost]:
    """Let the contestants run in turn; return the medians of each."""
    costs: dict[str, list[Cost]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            costs[name].append(cost_of(run))
    return {name: median_cost(each) for name, each in costs.items()}


def median_cost(costs: Sequence[Cost]) -> Cost:
    """Return the median of both clocks, each by itself."""
    return Cost(
        statistics.median(cost.seconds for cost in costs),
        statistics.median(cost.cpu_seconds for cost in costs),
    )


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out a table, the first column to the left, numbers to the right."""
    return markdown_table(columns, rows, escape=str).splitlines()


def report(lines: Sequence[str], path: Path) -> None:
    """Print a report and write it to a file."""
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def peak_mib(run: Callable[[], object], device: torch.device) -> float:
    """Return the memory a run needs beyond what was there; NaN where nobody counts it."""
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


def _cpu_seconds() -> float:
    of_children = sum(os.times()[2:4])  # user and system, in hundredths
    return time.process_time() + of_children
