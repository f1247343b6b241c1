"""Counts what makes the host wait for a GPU, without a GPU.

A GPU works through a queue that the host fills. The host waits where it needs a number or a size
that the queue is yet to compute, and where it copies its own memory to the device. Both are seen in
what is called and in the operators that PyTorch dispatches: on a CPU, where nothing waits, and on
the `meta` device, where the code takes the path of a device that is no CPU.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor, autograd
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# The first three ask for a number, the others for a size that depends on numbers.
ASKS = {
    "aten::_local_scalar_dense",
    "aten::equal",
    "aten::is_nonzero",
    "aten::nonzero",
    "aten::masked_select",
    "aten::unique_consecutive",
    "aten::unique_dim",
    "aten::_unique2",
    "aten::bincount",
    "aten::repeat_interleave",
}
INDEXES = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
COPIES = {"aten::_to_copy", "aten::copy_"}

CONSTANTS = {torch.tensor, torch.as_tensor, Tensor.new_tensor}
INDEXINGS = {Tensor.__getitem__, Tensor.__setitem__}


@contextmanager
def device_waits() -> Iterator[Counter[str]]:
    """Count, by what it is, all that would make the host wait for a device."""
    counts: Counter[str] = Counter()
    calls, from_numpy, run_backward = (
        _Calls(counts),
        torch.from_numpy,
        autograd._engine_run_backward,
    )

    def counted_from_numpy(array):  # the one maker of constants that no mode sees
        counts["constant of the host"] += 1
        return from_numpy(array)

    def counted_backward(*args, **kwargs):  # where PyTorch has switched the mode off
        with calls:
            return run_backward(*args, **kwargs)

    # Functions of modules: a method that is set on Tensor and taken off again would leave a trace
    # in the type.
    with (
        mock.patch.object(torch, "from_numpy", counted_from_numpy),
        mock.patch.object(autograd, "_engine_run_backward", counted_backward),
        calls,
        _Operators(counts),
    ):
        yield counts


class _Calls(TorchFunctionMode):
    """Sees constants of the host by their call: for a meta tensor no operator copies them."""

    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in CONSTANTS or (func in INDEXINGS and _has_list(args[1])):
            self.counts["constant of the host"] += 1
        return func(*args, **(kwargs or {}))


class _Operators(TorchDispatchMode):
    """Sees what asks the device, and what is copied to or from it."""

    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        if name in ASKS or (name in INDEXES and _has_mask(args[1])):
            self.counts[name] += 1
        result = func(*args, **(kwargs or {}))
        if name in COPIES and len({each.device.type for each in _tensors((result, args))}) > 1:
            self.counts["copy between host and device"] += 1
        return result


def _has_list(index: object) -> bool:
    return any(isinstance(each, list) for each in (index if isinstance(index, tuple) else [index]))


def _has_mask(index: object) -> bool:
    """Whether something is indexed by booleans: how many are true is not known."""
    return any(each.dtype in (torch.bool, torch.uint8) for each in _tensors(index))


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
