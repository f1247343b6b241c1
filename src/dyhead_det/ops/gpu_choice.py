"""Which backend computes deformable convolutions on a GPU: Triton's only where it is right.

Triton compiles for the GPU at hand. Before its first use in a process, its kernels are compared
with torchvision's operator there, see `gpu_trials.py`; where they differ or cannot be compiled,
another backend is taken, with a warning. Of those that are right, the fastest is found by a short
trial, and kept in a file of the user's cache folder for later runs on such a GPU.
"""

import json
import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import torch

from dyhead_det.errors import ConfigError
from dyhead_det.files import cache_folder, written_whole
from dyhead_det.ops.gpu_trials import Workload

logger = logging.getLogger(__name__)

MIN_CAPABILITY = (8, 0)
"""Of the GPUs that multiply bfloat16 and TF32."""


@cache  # every pass asks
def why_no_triton(device: torch.device) -> str | None:
    """Return why Triton's kernels cannot run on a device; None where they can. Imports nothing."""
    if find_spec("triton") is None:
        return "Triton is not installed here (`pip install triton`)"
    if is_interpreted():
        return None
    if device.type != "cuda":
        return f"Triton computes on a GPU (`--device cuda`), not on {device}"
    capability = torch.cuda.get_device_capability(device)
    if torch.version.hip is None and capability < MIN_CAPABILITY:
        name = torch.cuda.get_device_name(device)
        return (
            f"its kernels need compute capability 8.0, {name} has {'.'.join(map(str, capability))}"
        )
    return None


def require_triton(device: torch.device) -> None:
    """Refuse a device on which Triton's kernels cannot run.

    Raises:
        ConfigError: why, and what to do.
    """
    problem = why_no_triton(device)
    if problem is not None:
        raise ConfigError(
            f"model.dyhead.deform_backend: triton was asked for, but {problem}; `auto` takes what "
            "runs here"
        )


def is_interpreted() -> bool:
    """Tell whether Triton's interpreter computes, on tensors of any device."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@dataclass
class GpuChooser:
    """Chooses, and remembers for the time of the process what it has found.

    Attributes:
        find_problem: what is wrong with Triton's kernels for a workload, or None.
        milliseconds: what a backend takes for a workload.
        path: the file of choices.
    """

    find_problem: Callable[[Workload], str | None]
    milliseconds: Callable[[str, Workload], float]
    path: Path
    _is_right: dict[Workload, bool] = field(default_factory=dict)
    _chosen: dict[tuple[object, ...], str] = field(default_factory=dict)

    def is_triton_right(self, workload: Workload) -> bool:
        """Tell whether Triton's kernels do what they should; the first time they are compared."""
        kind = replace(workload, num_locations=0)
        if kind not in self._is_right:
            problem = self.find_problem(workload)
            self._is_right[kind] = problem is None
            if problem is not None:
                logger.warning(
                    "deform backend triton is not used for %s on this GPU: compared with "
                    "torchvision's operator, %s",
                    _type_name(workload),
                    problem,
                )
        return self._is_right[kind]

    def fastest(self, workload: Workload, others: Sequence[str], *, fallback: str) -> str:
        """Return the backend to take: Triton's or one of the others; the first time they are tried.

        Args:
            workload: for a device on which Triton's kernels can run.
            others: backends besides it.
            fallback: which of them to take where Triton's kernels are not right.
        """
        trial = (workload, *others)
        if trial not in self._chosen:
            self._chosen[trial] = self._choose(workload, others, fallback)
        return self._chosen[trial]

    def _choose(self, workload: Workload, others: Sequence[str], fallback: str) -> str:
        key = f"{key_of(workload)}: triton, {', '.join(others)}"
        kept = read_choices(self.path).get(key)
        if kept is not None and kept in others:
            return kept
        if not self.is_triton_right(workload):
            return fallback
        if kept == "triton":
            return kept
        taken = {name: self.milliseconds(name, workload) for name in ("triton", *others)}
        chosen = min(taken, key=taken.__getitem__)
        if taken[chosen] == math.inf:
            return fallback
        times = ", ".join(f"{name} {time:.2f} ms" for name, time in taken.items())
        logger.info("deformable convolutions by %s: %s (%s)", chosen, times, key)
        if all(map(math.isfinite, taken.values())):  # the memory may be free another time
            keep_choice(self.path, key, chosen)
        return chosen


def key_of(workload: Workload) -> str:
    """Describe a workload for people and for the file of choices."""
    try:
        triton = version("triton")
    except PackageNotFoundError:  # PyTorch for other GPUs brings it under other names
        triton = "unknown"
    return ", ".join(
        (
            torch.cuda.get_device_name(workload.device),
            f"torch {torch.__version__}",
            f"triton {triton}",
            _type_name(workload),
            f"{workload.channels} channels",
            f"about {workload.num_locations} locations",
            "forward and backward" if workload.has_backward else "forward",
        )
    )


def _type_name(workload: Workload) -> str:
    return "TF32" if workload.has_tf32 else str(workload.dtype).removeprefix("torch.")


def choices_path() -> Path:
    """Return where choices are kept: in the user's cache folder."""
    return cache_folder() / "deform_backends.json"


def read_choices(path: Path) -> dict[str, str]:
    """Read the file of choices; what is missing or damaged holds none."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def keep_choice(path: Path, key: str, backend: str) -> None:
    """Add a choice to the file; where that cannot be written, the next run tries again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as unfinished:
            choices = {**read_choices(path), key: backend}
            unfinished.write_text(json.dumps(choices, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        logger.info("the choice is not kept for later runs: %s", error)
