"""A checkpoint and the files made from it, timed under all conditions that were asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from tqdm import tqdm

from dyhead_det.benchmark.machine import machine
from dyhead_det.benchmark.report import NAMES, write_report
from dyhead_det.benchmark.rounds import Result, measure
from dyhead_det.benchmark.worker import Case, Contestant, Precision
from dyhead_det.checkpoints.checkpoint import load_checkpoint
from dyhead_det.distributed.device import choose_device
from dyhead_det.errors import ConfigError
from dyhead_det.files import require_writable
from dyhead_det.reporting.environment import num_cores


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is timed; every combination of the first three is a case.

    sizes_hw: heights and widths of images; none is the size of training.
    batch_sizes: images at a time.
    threads: of the CPU; none is all.
    precisions: of the checkpoint.
    device: of the checkpoint; ONNX files run on the CPU.
    num_rounds: how often each contestant has its turn in a case.
    num_runs: how often it runs then.
    """

    sizes_hw: Sequence[tuple[int, int]] = ()
    batch_sizes: Sequence[int] = (1,)
    threads: Sequence[int] = ()
    precisions: Sequence[Precision] = ("float32",)
    device: str = "auto"
    num_rounds: int = 5
    num_runs: int = 5


def benchmark(checkpoint: Path, onnx_files: Sequence[Path], out: Path, plan: Plan) -> list[Result]:
    """Time a checkpoint in each precision, and ONNX files, in every case.

    Args:
        checkpoint: resizes images to the size of the case.
        onnx_files: resize images as they do.
        out: folder for the report.
        plan: the cases.

    Raises:
        DyHeadDetError: if something cannot be loaded, run or written.
    """
    require_writable(out, *NAMES)
    size = load_checkpoint(checkpoint).config.model.input
    chosen = choose_device(plan.device)
    if chosen.type != "cpu" and onnx_files:
        raise ConfigError("ONNX files are timed on the CPU: add --device cpu, or leave them out")
    contestants = [
        *(
            Contestant(checkpoint, precision, str(chosen))
            for precision in dict.fromkeys(plan.precisions)
        ),
        *(Contestant(path, "float32", "cpu") for path in onnx_files),
    ]
    cases = [
        Case(*each)
        for each in product(
            plan.sizes_hw or [(size.short_edge, size.long_edge)],
            plan.batch_sizes,
            plan.threads or [num_cores()],
        )
    ]
    results: list[Result] = []
    with tqdm(
        total=len(cases) * len(contestants) * plan.num_rounds,
        desc="benchmark",
        leave=False,
        disable=None,
    ) as bar:
        for case in cases:
            results += measure(
                contestants,
                case,
                num_rounds=plan.num_rounds,
                num_runs=plan.num_runs,
                tell=bar.update,
            )
    write_report(results, out, machine=machine())
    return results
