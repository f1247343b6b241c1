"""Out-of-memory errors, explained: how much was wanted, and which values to lower."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from dyhead_det.config.schema import RunConfig
from dyhead_det.errors import OutOfMemoryError

# What CUDA, cuBLAS, cuDNN, MPS and the CPU's allocator say in a plain RuntimeError.
_TEXTS = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")


@contextmanager
def explained_out_of_memory(
    config: RunConfig, device: torch.device, saved_summary: Callable[[], str]
) -> Iterator[None]:
    """Turn every error about memory into one with advice.

    Args:
        config: The run whose values may be lowered.
        device: Where it runs.
        saved_summary: Returns what of the run is saved at that time.

    Raises:
        OutOfMemoryError: Instead of the many errors of PyTorch and Python.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_about_memory(error):
            raise
        raise OutOfMemoryError(
            f"out of memory on {device}{_wanted(error)}; {_parts_advice(config)}"
            f"lower {_advice(config, device)}; {saved_summary()}"
        ) from error


def _is_about_memory(error: Exception) -> bool:
    is_named = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return is_named or any(text in str(error) for text in _TEXTS)


def _wanted(error: Exception) -> str:
    """Return how much was asked for, where the error tells."""
    found = re.search(r"allocate ([\d.]+ ?[A-Za-z]+)", str(error))
    return f", {found[1]} more were needed" if found else ""


def _parts_advice(config: RunConfig) -> str:
    """Name the value that costs nothing but time; a resumed run may change it too."""
    train = config.train
    if train.accumulate == train.batch_size:
        return ""
    return f"raise train.accumulate ({train.accumulate}) to at most {train.batch_size}, or "


def _advice(config: RunConfig, device: torch.device) -> str:
    size = config.model.input
    values = [
        f"train.batch_size ({config.train.batch_size})",
        f"model.input.short_edge and long_edge ({size.short_edge}, {size.long_edge})",
    ]
    if size.multi_scale:
        values.append(f"model.input.multi_scale (up to {max(size.multi_scale)})")
    if device.type != "cuda":
        return f"{' or '.join(values)}, or data.num_workers ({config.data.num_workers})"
    amp = "" if config.train.amp != "off" else ", or set train.amp=bf16"
    return f"{' or '.join(values)}{amp}"
