"""Pickles of other programs, read for their tensors and arrays; nothing in them is ever called.

A pickle is a program: it can name any function, call it, and set any state of what comes out. Even
numpy's and PyTorch's own constructors do harm when a stranger chooses their arguments: a `dtype` of
objects over bytes of the file turns these bytes into pointers. So a pickle never gets hold of
anything but plain values and of the classes in this file, which have slots and no state of their
own to set; the few names that mean something are looked up in a table. What they describe becomes
a tensor only after all of it was checked.
"""

import io
import math
import pickle
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, Literal, Protocol, TypeGuard

import numpy as np
import torch
from torch import Tensor

MAX_OPERATIONS = 1_000_000
"""Of a pickle; one of a trained model with its optimizer has about 50 000."""

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


# --- the names that mean something --------------------------------------------------------------


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

_STORAGE_DTYPES = {
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


def _call(function: object, arguments: object) -> object:
    if not isinstance(arguments, tuple):
        raise pickle.UnpicklingError("a call without arguments")
    build = _BUILDERS.get(function.path) if isinstance(function, Global) else None
    return Placeholder() if build is None else build(*arguments)


# --- the machine --------------------------------------------------------------------------------


class _Operations(dict[int, Callable[[Any], None]]):
    """The operations of a pickle by their codes, counted."""

    def __init__(self, operations: Mapping[int, Callable[[Any], None]]) -> None:
        super().__init__(operations)
        self.num_done = 0

    def __getitem__(self, code: int) -> Callable[[Any], None]:
        self.num_done += 1
        if self.num_done > MAX_OPERATIONS:
            raise pickle.UnpicklingError(f"more than {MAX_OPERATIONS} operations")
        if code not in self:
            raise pickle.UnpicklingError(f"operation {bytes([code])!r}, which no data need")
        return super().__getitem__(code)


class _BoundedFile:
    """A file of which nobody can ask more than there is: Python allocates what is asked for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        start = file.tell()
        self._size = file.seek(0, io.SEEK_END)
        file.seek(start)

    def read(self, size: int) -> bytes:
        content = self._file.read(min(size, self._size))
        if len(content) < size:
            raise EOFError("the file is cut short")
        return content

    def readline(self) -> bytes:
        return self._file.readline()


# Of Python's own machine, the one that is written in Python: its twin in C takes as much memory for
# its memo as a file asks for.
_Machine: Any = pickle._Unpickler

# EXT*, INST, OBJ, DUP, NEXT_BUFFER and READONLY_BUFFER are not needed for data.
_TAKEN_AS_THEY_ARE = (
    pickle.PROTO + pickle.FRAME + pickle.STOP + pickle.MARK + pickle.POP + pickle.POP_MARK
    + pickle.MEMOIZE + pickle.PUT + pickle.BINPUT + pickle.LONG_BINPUT
    + pickle.GET + pickle.BINGET + pickle.LONG_BINGET
    + pickle.NONE + pickle.NEWTRUE + pickle.NEWFALSE
    + pickle.INT + pickle.BININT + pickle.BININT1 + pickle.BININT2
    + pickle.LONG + pickle.LONG1 + pickle.LONG4 + pickle.FLOAT + pickle.BINFLOAT
    + pickle.STRING + pickle.BINSTRING + pickle.SHORT_BINSTRING
    + pickle.UNICODE + pickle.BINUNICODE + pickle.SHORT_BINUNICODE + pickle.BINUNICODE8
    + pickle.BINBYTES + pickle.SHORT_BINBYTES + pickle.BINBYTES8
    + pickle.EMPTY_TUPLE + pickle.TUPLE + pickle.TUPLE1 + pickle.TUPLE2 + pickle.TUPLE3
    + pickle.EMPTY_LIST + pickle.LIST + pickle.EMPTY_DICT
    + pickle.GLOBAL + pickle.STACK_GLOBAL + pickle.PERSID + pickle.BINPERSID
)  # fmt: skip

# What a key may be: the hash of a deeply nested tuple overruns the stack of C.
_KEYS = (str, int, float, bytes, type(None))


class RestrictedUnpickler(_Machine):  # type: ignore[misc]  # its operations have no types
    """Python's own unpickler; its operations that touch an object know only our own classes."""

    def __init__(self, file: BinaryIO, reader: StorageReader | None = None) -> None:
        super().__init__(_BoundedFile(file), encoding="latin1")
        self.reader = reader
        self.element_sizes: dict[str, int] = {}
        self.dispatch = _Operations(
            {code: _Machine.dispatch[code] for code in _TAKEN_AS_THEY_ARE} | _OWN_OPERATIONS
        )

    def find_class(self, module: str, name: str) -> Global:
        """Return a name as it is written."""
        return Global(f"{module}.{name}")

    def persistent_load(self, identity: object) -> object:
        """Return what a storage is said to be: the type, a key, a device and the size."""
        if not isinstance(identity, tuple) or len(identity) not in (5, 6):
            return Placeholder()
        kind, storage_type, key, _, num_elements, *views = identity
        if kind != "storage" or not isinstance(storage_type, Global) or views not in ([], [None]):
            return Placeholder()
        dtype = _STORAGE_DTYPES.get(storage_type.path)
        if dtype is None or self.reader is None or not isinstance(key, str):
            return Placeholder()
        if not isinstance(num_elements, int):
            return Placeholder()
        if self.element_sizes.setdefault(key, dtype.itemsize) != dtype.itemsize:
            raise pickle.UnpicklingError(f"storage {key} of two types")
        return Storage(self.reader, key, dtype, num_elements)

    def call(self) -> None:
        """Replace a name and its arguments by what our table has for it."""
        arguments = self.stack.pop()
        self.stack[-1] = _call(self.stack[-1], arguments)

    def call_with_keywords(self) -> None:
        """Replace a name, its arguments and keywords by a placeholder: no data need keywords."""
        del self.stack[-2:]
        self.stack[-1] = Placeholder()

    def build(self) -> None:
        """Give a state to what takes one; leave all else as it is."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], PickledArray | PickledDtype):
            self.stack[-1].set_state(state)

    def add_item(self) -> None:
        """Put one value into a dictionary."""
        value, key = self.stack.pop(), self.stack.pop()
        self._add(self.stack[-1], [key, value])

    def add_items(self) -> None:
        """Put values into a dictionary."""
        items = self.pop_mark()
        self._add(self.stack[-1], items)

    def make_dictionary(self) -> None:
        """Make a dictionary of the values since the mark."""
        items = self.pop_mark()
        self.append({})
        self._add(self.stack[-1], items)

    def _add(self, target: object, items: list[object]) -> None:
        if isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                if isinstance(key, _KEYS):
                    target[key] = value

    def extend_one(self) -> None:
        """Put one value at the end of a list."""
        value = self.stack.pop()
        if isinstance(self.stack[-1], list):
            self.stack[-1].append(value)

    def extend(self) -> None:
        """Put values at the end of a list."""
        values = self.pop_mark()
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(values)

    def make_set(self) -> None:
        """Stand in for a set, which no tensor is in."""
        self.append(Placeholder())

    def make_frozen_set(self) -> None:
        """Stand in for a set of the values since the mark."""
        self.pop_mark()
        self.append(Placeholder())

    def drop_items(self) -> None:
        """Leave out what belongs into a set."""
        self.pop_mark()

    def read_bytearray(self) -> None:
        """Read bytes that may be changed as bytes that may not; the length is not trusted."""
        length = int.from_bytes(self.read(8), "little")
        self.append(self.read(length))


_OWN_OPERATIONS: dict[int, Callable[[Any], None]] = {
    operation[0]: handler
    for operation, handler in (
        (pickle.REDUCE, RestrictedUnpickler.call),
        (pickle.NEWOBJ, RestrictedUnpickler.call),
        (pickle.NEWOBJ_EX, RestrictedUnpickler.call_with_keywords),
        (pickle.BUILD, RestrictedUnpickler.build),
        (pickle.SETITEM, RestrictedUnpickler.add_item),
        (pickle.SETITEMS, RestrictedUnpickler.add_items),
        (pickle.DICT, RestrictedUnpickler.make_dictionary),
        (pickle.APPEND, RestrictedUnpickler.extend_one),
        (pickle.APPENDS, RestrictedUnpickler.extend),
        (pickle.EMPTY_SET, RestrictedUnpickler.make_set),
        (pickle.FROZENSET, RestrictedUnpickler.make_frozen_set),
        (pickle.ADDITEMS, RestrictedUnpickler.drop_items),
        (pickle.BYTEARRAY8, RestrictedUnpickler.read_bytearray),
    )
}
