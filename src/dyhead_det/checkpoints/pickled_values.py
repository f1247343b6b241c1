"""What the pickles of other programs describe, as plain values and as the classes in this file.

These have slots and no state of their own to set; the few names that mean something are looked up
in a table. What they describe becomes a tensor only after all of it was checked.
"""

import math
import pickle
from collections.abc import Callable
from typing import Literal, Protocol, TypeGuard

import numpy as np
import torch
from torch import Tensor

MAX_DIMENSIONS = 8


class Placeholder:
    """Stands for a class, a function or an object that is not wanted."""

    __slots__ = ()


class Global:
    """A name in a pickle."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path


class StorageReader(Protocol):
    """Where the bytes of a file's storages are."""

    def storage(self, key: str) -> Tensor:
        """Return all bytes of a storage, (N,) uint8; the same memory for the same key.

        Raises:
            pickle.UnpicklingError: If there is no such storage.
        """
        ...


class Storage:
    """What a pickle says of a tensor's bytes, which lie elsewhere in the file."""

    __slots__ = ("dtype", "key", "num_elements", "reader")

    def __init__(
        self, reader: StorageReader, key: str, dtype: torch.dtype, num_elements: int
    ) -> None:
        self.reader, self.key, self.dtype, self.num_elements = reader, key, dtype, num_elements


class PickledTensor:
    """A tensor of PyTorch as a pickle describes it."""

    __slots__ = ("offset", "shape", "storage", "strides")

    def __init__(
        self, storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> None:
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    def to_tensor(self) -> Tensor:
        """Return the tensor, in its storage's memory.

        Raises:
            pickle.UnpicklingError: If it does not lie in its storage, or repeats its elements.
        """
        storage = self.storage
        content = storage.reader.storage(storage.key)
        if len(content) != storage.num_elements * storage.dtype.itemsize:
            raise pickle.UnpicklingError(
                f"storage {storage.key} has {len(content)} bytes, not {storage.num_elements} "
                f"numbers of {storage.dtype}"
            )
        num_elements = math.prod(self.shape)
        if not num_elements:
            return torch.empty(self.shape, dtype=storage.dtype)
        extent = 1 + sum(
            (size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True)
        )
        if extent < num_elements or self.offset + extent > storage.num_elements:
            raise pickle.UnpicklingError(
                f"a tensor of shape {self.shape} does not lie in its {storage.num_elements} numbers"
            )
        return content.view(storage.dtype).as_strided(self.shape, self.strides, self.offset)


class PickledDtype:
    """The type of an array's numbers: a code as `f4`, and the order of their bytes."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        self.code, self.order = code, "<"

    def set_state(self, state: object) -> None:
        """Take the order of bytes from what numpy keeps of a dtype, and nothing else."""
        if isinstance(state, tuple) and len(state) > 1 and state[1] == ">":
            self.order = ">"


class PickledArray:
    """An array of numpy as a pickle describes it; empty until its state has come."""

    __slots__ = ("content", "dtype", "is_fortran", "shape")

    def __init__(self) -> None:
        self.content: bytes | None = None
        self.dtype: PickledDtype | None = None
        self.shape: tuple[int, ...] = ()
        self.is_fortran = False

    def set_state(self, state: object) -> None:
        """Take numpy's (version, shape, dtype, is_fortran, content), if it is one of numbers."""
        if not isinstance(state, tuple) or len(state) != 5:
            return
        _, shape, dtype, is_fortran, content = state
        self.fill(shape, dtype, content, is_fortran=is_fortran is True)

    def fill(self, shape: object, dtype: object, content: object, *, is_fortran: bool) -> None:
        """Take bytes that are said to be numbers; leave the array empty where they are none."""
        if isinstance(content, str):  # bytes that Python 2 wrote as text
            content = content.encode("latin1")
        if isinstance(dtype, PickledDtype) and isinstance(content, bytes) and _are_sizes(shape):
            self.content, self.dtype, self.is_fortran = content, dtype, is_fortran
            self.shape = shape

    def to_tensor(self) -> Tensor:
        """Return a contiguous copy.

        Raises:
            pickle.UnpicklingError: If shape and content do not fit.
        """
        if self.content is None or self.dtype is None:
            raise pickle.UnpicklingError("an array without numbers")
        dtype = np.dtype(self.dtype.order + self.dtype.code)
        if math.prod(self.shape) * dtype.itemsize != len(self.content):
            raise pickle.UnpicklingError(f"an array of {self.shape} has {len(self.content)} bytes")
        order: Literal["F", "C"] = "F" if self.is_fortran else "C"
        array = np.frombuffer(self.content, dtype).reshape(self.shape, order=order)
        return torch.from_numpy(array.astype(dtype.newbyteorder("="), order="C", copy=True))


def _are_sizes(value: object) -> TypeGuard[tuple[int, ...]]:
    return (
        isinstance(value, tuple)
        and len(value) <= MAX_DIMENSIONS
        and all(type(size) is int and 0 <= size < 2**48 for size in value)
    )


def _dict(*_items: object) -> object:
    return {}


def _size(sizes: object = ()) -> object:
    return sizes


def _tensor(
    storage: object, offset: object, shape: object, strides: object, *_rest: object
) -> object:
    if not isinstance(storage, Storage) or not isinstance(offset, int) or offset < 0:
        return Placeholder()
    if not _are_sizes(shape) or not _are_sizes(strides) or len(shape) != len(strides):
        return Placeholder()
    return PickledTensor(storage, offset, shape, strides)


def _parameter(tensor: object, *_rest: object) -> object:
    return tensor


def _dtype(code: object = "", *_rest: object) -> object:
    return PickledDtype(code) if code in _NUMBER_CODES else Placeholder()


def _array(*_arguments: object) -> object:
    return PickledArray()


def _array_from_buffer(content: object, dtype: object, shape: object, order: object) -> object:
    array = PickledArray()
    array.fill(shape, dtype, content, is_fortran=order == "F")
    return array


def _encoded(text: object, encoding: object) -> object:
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes encoded as {encoding!r}")
    return text.encode("latin1")


_NUMBER_CODES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")

_BUILDERS: dict[str, Callable[..., object]] = {
    "collections.OrderedDict": _dict,
    "torch.Size": _size,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "numpy.dtype": _dtype,
    "_codecs.encode": _encoded,
    **{
        f"{package}.{name}": build
        for package in ("numpy.core", "numpy._core")  # numpy 1 and 2
        for name, build in (
            ("multiarray._reconstruct", _array),
            ("numeric._frombuffer", _array_from_buffer),
        )
    },
}

STORAGE_DTYPES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}


def build_value(function: object, arguments: object) -> object:
    """Return what the call of a name describes, a placeholder where the name means nothing.

    Raises:
        pickle.UnpicklingError: If the arguments are none.
    """
    if not isinstance(arguments, tuple):
        raise pickle.UnpicklingError("a call without arguments")
    builder = _BUILDERS.get(function.path) if isinstance(function, Global) else None
    return Placeholder() if builder is None else builder(*arguments)
