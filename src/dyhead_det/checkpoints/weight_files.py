"""The one reader of files of weights: PyTorch's, pickles of arrays, safetensors; no code is run.

What is no plain value or tensor comes out as a `Placeholder`, so that tensors can be had from a
file that also holds a training loop's objects, whose program need not be installed.
"""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from safetensors import SafetensorError
from safetensors.torch import load_file as load_safetensors
from torch import Tensor

from dyhead_det.checkpoints.pickled_values import PickledArray, PickledTensor, Placeholder
from dyhead_det.checkpoints.recognize import beginning_looks_like
from dyhead_det.checkpoints.restricted_pickle import RestrictedUnpickler
from dyhead_det.checkpoints.torch_files import (
    DAMAGES,
    OLD_FORMAT_START,
    read_archive,
    read_old_format,
)
from dyhead_det.errors import CheckpointError
from dyhead_det.escaping import listed, printable
from dyhead_det.files import open_file

MAX_VALUES = 500_000
"""Plain values and tensors of a file, repeated ones counted again; the largest have some 10 000."""
MAX_DEPTH = 32

# An archive, or a pickle of Python 3 or of the last years of 2.
_ARCHIVE_START = b"PK\x03\x04"
_PYTORCH_STARTS = (_ARCHIVE_START, b"\x80")
_BEGINNING_BYTES = 64
_MAX_REASON = 300

# What reading a damaged file can raise, besides an error of the file system.
_DAMAGED = (
    *DAMAGES,
    pickle.UnpicklingError,
    SafetensorError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,  # Python's unpickler
    MemoryError,
    RecursionError,
)


def read_weight_file(path: Path) -> object:
    """Read a file of weights.

    Args:
        path: What `torch.save` wrote, a pickle of arrays, or .safetensors; the content tells.

    Returns:
        What the file holds: plain values, tensors on the CPU, and placeholders for all else.

    Raises:
        CheckpointError: If the file is missing, damaged, no file of weights, or would take more
            memory than a file of its size may.
    """
    try:
        with open_file(path) as file:
            return _read(file, path)
    except _DAMAGED as error:
        raise _cannot_read(path, error) from error


def _read(file: BinaryIO, path: Path) -> object:
    beginning = file.read(_BEGINNING_BYTES)
    kind = beginning_looks_like(beginning)
    if kind is not None:
        raise CheckpointError(f"{path}: no file of weights; it looks like {kind}")
    file.seek(0)
    if path.suffix == ".safetensors":
        return dict(load_safetensors(path))
    if path.suffix != ".pkl" and not beginning.startswith(_PYTORCH_STARTS):
        raise CheckpointError(
            f"{path}: no PyTorch file; a run's checkpoints are its best.pt and last.pt"
        )
    if zipfile.is_zipfile(file):
        return plain_values(read_archive(file))
    if beginning.startswith(_ARCHIVE_START):
        raise EOFError("an archive without its end: the file is cut short; fetch or copy it again")
    file.seek(0)
    if beginning.startswith(OLD_FORMAT_START):
        return plain_values(read_old_format(file))
    return plain_values(RestrictedUnpickler(file).load())


def _cannot_read(path: Path, error: BaseException) -> CheckpointError:
    if isinstance(error, OSError) and error.errno is not None:
        return CheckpointError(f"{path}: cannot read: {error.strerror}")
    reason = printable(str(error) or type(error).__name__, max_length=_MAX_REASON)
    return CheckpointError(f"{path}: damaged, or no file of weights ({reason})")


def plain_values(content: object) -> object:
    """Return a copy of plain values with tensors for what describes them.

    Everything is copied, so that what is repeated by reference counts as often as it is used.

    Raises:
        ValueError: If there are too many values, or they are nested too deeply.
    """
    return _Copier().copy(content, depth=0)


class _Copier:
    def __init__(self) -> None:
        self._num_values = 0
        # Of the same description the same tensor; the description is kept, so its id is its own.
        self._tensors: dict[int, tuple[object, Tensor]] = {}

    def copy(self, value: object, *, depth: int) -> object:
        self._num_values += 1
        if self._num_values > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES} values, repeated ones counted")
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, dict):
            return {key: self.copy(item, depth=depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)([self.copy(item, depth=depth + 1) for item in value])
        if isinstance(value, PickledTensor | PickledArray):
            return self._tensor(value)
        is_plain = value is None or isinstance(value, bool | int | float | str | bytes)
        return value if is_plain else Placeholder()

    def _tensor(self, value: PickledTensor | PickledArray) -> object:
        if isinstance(value, PickledArray) and value.content is None:
            return Placeholder()  # of objects, not of numbers
        if id(value) not in self._tensors:
            self._tensors[id(value)] = (value, value.to_tensor())
        return self._tensors[id(value)][1]


def has_placeholders(content: object) -> bool:
    """Return whether there is more than plain values and tensors in what was read from a file."""
    if isinstance(content, Mapping):
        return any(map(has_placeholders, content.values()))
    if isinstance(content, list | tuple):
        return any(map(has_placeholders, content))
    return isinstance(content, Placeholder)


def named_tensors(content: object) -> dict[str, Tensor]:
    """Return the tensors by name, without the usual wrappings and a leading ``module.``.

    Empty where the content is no state dict.
    """
    weights, _ = _unwrap(content)
    return {
        str(name).removeprefix("module."): value
        for name, value in weights.items()
        if isinstance(value, Tensor)
    }


def names_without_tensors(content: object) -> list[str]:
    """Return the names of all else in a file: an optimizer, a history, an author ..."""
    weights, beside = _unwrap(content)
    return beside + [str(name) for name, value in weights.items() if not isinstance(value, Tensor)]


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read tensors by name, without the usual wrappings and a leading ``module.``.

    Raises:
        CheckpointError: If the file cannot be read, or holds no named tensors.
    """
    content = read_weight_file(path)
    tensors = named_tensors(content)
    if not tensors:
        has = f"it is a {type(content).__name__}"
        if isinstance(content, Mapping):
            has = f"its keys are {listed(content)}" if content else "it is empty"
        raise CheckpointError(f"{path}: holds no named tensors; {has}")
    return tensors


def _unwrap(content: object) -> tuple[Mapping[object, object], list[str]]:
    """Return the state dict in a file, and the names of what lies beside it."""
    beside: list[str] = []
    for wrapping in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapping), Mapping):
            beside += [str(name) for name in content if name != wrapping]
            content = content[wrapping]
    return (content if isinstance(content, Mapping) else {}), beside
