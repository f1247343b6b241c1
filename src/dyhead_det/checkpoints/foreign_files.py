"""Files of other programs, read for their tensors without running any code that is in them.

A pickle can name any function and have it called. Here a name means itself only if it builds
tensors, arrays or ordered dictionaries; every other becomes a `Placeholder`, which takes whatever
the file does to it and does nothing. So the tensors can be had from a file that also holds a
training loop's objects, whose program need not be installed.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dyhead_det.checkpoints.recognize import beginning_looks_like
from dyhead_det.errors import CheckpointError


class Placeholder:
    """Stands for a class, a function or an object that is not wanted."""

    def __new__(cls, *_args: object, **_keywords: object) -> "Placeholder":
        """Take any arguments."""
        return super().__new__(cls)

    def __init__(self, *_args: object, **_keywords: object) -> None:
        pass

    def __call__(self, *_args: object, **_keywords: object) -> "Placeholder":
        """Be a function that returns nothing of interest."""
        return self

    def __setstate__(self, _state: object) -> None: ...

    def __setitem__(self, _key: object, _value: object) -> None: ...

    def append(self, _value: object) -> None:
        """Take what belongs into a list."""

    def extend(self, _values: object) -> None:
        """Take what belongs into a list."""

    def add(self, _value: object) -> None:
        """Take what belongs into a set."""


def _encode_latin1(text: str, encoding: str) -> bytes:
    """Return bytes that pickle's second protocol wrote as text: `codecs.encode` for one codec."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes encoded as {encoding!r}")
    return text.encode("latin1")


# Numpy's own functions that start an array; both only look at bytes.
_NUMPY_RECONSTRUCT = np.zeros(0).__reduce__()[0]
_NUMPY_FROM_BUFFER = np.zeros(0).__reduce_ex__(5)[0]

_MEANT_AS_NAMED: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): torch.Size,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("numpy.core.multiarray", "_reconstruct"): _NUMPY_RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _NUMPY_RECONSTRUCT,
    ("numpy.core.numeric", "_frombuffer"): _NUMPY_FROM_BUFFER,
    ("numpy._core.numeric", "_frombuffer"): _NUMPY_FROM_BUFFER,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode_latin1,
}


class RestrictedUnpickler(pickle.Unpickler):
    """An unpickler for which all names but those that build tensors are placeholders."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - pickle's signature
        """Return what a name in the file stands for."""
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        return _MEANT_AS_NAMED.get((module, name), Placeholder)


class _RestrictedPickle:
    """What `torch.load` wants of a pickle module."""

    __name__ = "restricted pickle"
    Unpickler = RestrictedUnpickler

    @staticmethod
    def load(file: IO[bytes], **keywords: Any) -> object:  # noqa: ANN401 - pickle's signature
        """Read one pickle, as `pickle.load`."""
        return RestrictedUnpickler(file, **keywords).load()


# What reading a damaged file can raise, besides an error of the file system.
DAMAGED = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
)


def read_foreign_file(path: Path) -> object:
    """Read a `torch.save` file, a pickle of arrays (.pkl) or a .safetensors file.

    Returns:
        What the file holds, with placeholders for all that is no plain value.

    Raises:
        CheckpointError: If the file is missing, damaged or a program.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        if path.suffix == ".pkl" and not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                return RestrictedUnpickler(file, encoding="latin1").load()
        if zipfile.is_zipfile(path) and _is_program(path):
            raise CheckpointError(f"{path}: a TorchScript program; wanted is a file of weights")
        return torch.load(
            path, map_location="cpu", pickle_module=_RestrictedPickle, weights_only=False
        )
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read: {error.strerror or error}") from error
    except (*DAMAGED, SafetensorError) as error:
        with path.open("rb") as file:
            kind = beginning_looks_like(file.read(64))
        if kind is not None:
            raise CheckpointError(f"{path}: no file of weights; it looks like {kind}") from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: damaged, or no file of weights ({reason})") from error


def _is_program(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def named_tensors(content: object) -> dict[str, Tensor]:
    """Return the tensors by name, without the usual wrappings and a leading ``module.``.

    Empty where the content is no state dict.
    """
    weights, _ = _unwrap(content)
    return {
        str(name).removeprefix("module."): _as_tensor(value)
        for name, value in weights.items()
        if _holds_numbers(value)
    }


def names_without_tensors(content: object) -> list[str]:
    """Return the names of all else in a file: an optimizer, a history, an author ..."""
    weights, beside = _unwrap(content)
    return beside + [str(name) for name, value in weights.items() if not _holds_numbers(value)]


def _unwrap(content: object) -> tuple[Mapping[object, object], list[str]]:
    """Return the state dict in a file, and the names of what lies beside it."""
    beside: list[str] = []
    for wrapping in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapping), Mapping):
            beside += [str(name) for name in content if name != wrapping]
            content = content[wrapping]
    return (content if isinstance(content, Mapping) else {}), beside


def _holds_numbers(value: object) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "fiu"
    return isinstance(value, Tensor)


def _as_tensor(value: Any) -> Tensor:  # noqa: ANN401 - what `_holds_numbers` lets through
    return torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value
