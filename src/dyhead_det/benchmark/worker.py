"""One contestant in a process of its own: it loads a file, and runs it whenever it is told to.

A process of its own has its own number of threads and its own peak of memory, and one that runs an
ONNX file does not import PyTorch.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dyhead_det.benchmark.machine import status_mib
from dyhead_det.errors import DyHeadDetError
from dyhead_det.escaping import printable

Precision = Literal["float32", "bf16"]
Run = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Contestant:
    """What runs: a file on a device.

    precision: that a checkpoint computes in; an ONNX file has its own.
    """

    path: Path
    precision: Precision
    device: str

    @property
    def is_onnx(self) -> bool:
        """Whether onnxruntime runs it, not PyTorch."""
        return self.path.suffix.lower() == ".onnx"


@dataclass(frozen=True, slots=True)
class Case:
    """Under which conditions: images of a height and width, as many at a time, on threads."""

    size_hw: tuple[int, int]
    batch_size: int
    num_threads: int


def serve(connection: Connection, contestant: Contestant, case: Case) -> None:
    """Load, then answer: to a number of runs with the seconds of each, to None with the peak.

    The first answer is its precision, or the error that made it impossible.

    Args:
        connection: to who asks.
        contestant: what to run.
        case: on what.
    """
    try:
        load = _load_onnx if contestant.is_onnx else _load_checkpoint
        run, precision = load(contestant, case)
        run()  # what is done once is done: allocation, the choice of algorithms
    except DyHeadDetError as error:
        connection.send(error)
        return
    except (ValueError, RuntimeError, MemoryError) as error:
        reason = printable(error or type(error).__name__, max_length=300)
        connection.send(DyHeadDetError(f"{contestant.path}: cannot be run ({reason})"))
        return
    connection.send(precision)
    while (num_runs := connection.recv()) is not None:
        seconds = []
        for _ in range(num_runs):
            started_at = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - started_at)
        connection.send(seconds)
    connection.send(_peak_mib(contestant.device))


def example_images(case: Case) -> list[NDArray[np.uint8]]:
    """Return images (3, H, W): large and small things in noise, the same for all contestants."""
    generator = np.random.default_rng(0)
    height, width = case.size_hw
    images = []
    for _ in range(case.batch_size):
        coarse = generator.integers(0, 128, (3, -(-height // 32), -(-width // 32)))
        blocks = coarse.repeat(32, axis=1).repeat(32, axis=2)[:, :height, :width]
        fine = generator.integers(0, 128, (3, height, width))
        images.append((blocks + fine).astype(np.uint8))
    return images


def _load_onnx(contestant: Contestant, case: Case) -> tuple[Run, str]:
    from dyhead_det.prediction.onnx_session import OnnxSession  # noqa: PLC0415 - not always needed

    session = OnnxSession(contestant.path, num_threads=case.num_threads)
    images = example_images(case)
    precision: str = json.loads(session.metadata.get("export", "{}")).get("precision", "float32")
    if session.takes_uint8:
        return lambda: session.detect(images), precision
    as_floats = [image.astype(np.float32) / 255 for image in images]
    return lambda: session.detect(as_floats), precision


def _load_checkpoint(contestant: Contestant, case: Case) -> tuple[Run, str]:
    # A process that runs an ONNX file must not import these.
    import torch  # noqa: PLC0415

    from dyhead_det.prediction.load import load  # noqa: PLC0415

    torch.set_num_threads(case.num_threads)
    predictor = load(
        contestant.path,
        device=contestant.device,
        short_edge=min(case.size_hw),
        long_edge=max(case.size_hw),
        amp="bf16" if contestant.precision == "bf16" else "off",
    )
    images = [torch.from_numpy(image).float() / 255 for image in example_images(case)]
    images = [image.to(predictor.device) for image in images]
    device = predictor.device.type

    def run() -> None:
        with torch.inference_mode():
            predictor.detector(images)
        if device == "cuda":
            torch.cuda.synchronize()

    return run, contestant.precision


def _peak_mib(device: str) -> float:
    """Return the most memory that this process had, libraries included; on a GPU the GPU's."""
    if device.startswith("cuda"):
        import torch  # noqa: PLC0415 - a process that runs an ONNX file must not import it

        return torch.cuda.max_memory_allocated() / 2**20
    return status_mib("VmHWM")
