"""What was measured on, and the memory of a process."""

import math
import platform
import sys
from importlib.metadata import version
from pathlib import Path


def status_mib(key: str) -> float:
    """Return a number of this process's memory, such as ``VmHWM``, the peak; NaN where unknown.

    Not `resource.getrusage`, whose peak a process inherits from the one that started it.

    Args:
        key: as in Linux's /proc/self/status.
    """
    if sys.platform != "linux":
        return math.nan
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    return math.nan


def machine() -> str:
    """Name processor, Python and the libraries that matter."""
    # Processes that run an ONNX file import this module and no PyTorch.
    from dyhead_det.reporting.environment import cpu_name, num_cores  # noqa: PLC0415

    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "pillow"))
    return f"{cpu_name()}, {num_cores()} CPUs, Python {platform.python_version()}, {libraries}"
