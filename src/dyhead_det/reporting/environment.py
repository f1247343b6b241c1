"""Environment of a run: package versions, operating system, CPU and GPU, git revision."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

_PACKAGES = (
    "dyhead-det",
    "torch",
    "torchvision",
    "numpy",
    "timm",
    "pycocotools",
    "faster-coco-eval",
)


def describe_environment(device: torch.device) -> dict[str, str]:
    """Return versions, hardware and git revision for the report, by name.

    Args:
        device: where the run computes.
    """
    lines = {"Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            lines[name] = version(name)
        except PackageNotFoundError:  # not all of them are needed
            continue
    lines["operating system"] = platform.platform()
    lines["CPU"] = f"{cpu_name()}, {num_cores()} cores, threads: {torch.get_num_threads()}"
    lines["device"] = _describe_device(device)
    lines["git revision"] = git_revision(Path.cwd()) or "none"
    return lines


def num_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def git_revision(folder: Path) -> str | None:
    """Return the commit that a folder is at, None outside of git or without git."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}, with uncommitted changes" if changes else commit


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git answers, None where it cannot."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,  # a repository on a slow network drive
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def cpu_name() -> str:
    """Return the name of the processor; Python does not know it on Linux."""
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _describe_device(device: torch.device) -> str:
    if device.type != "cuda":
        return str(device)
    properties = torch.cuda.get_device_properties(device)
    gib = properties.total_memory / 2**30
    return f"{properties.name}, {gib:.0f} GiB, CUDA {torch.version.cuda}"
