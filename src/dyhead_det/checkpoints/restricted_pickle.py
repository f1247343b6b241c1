"""Pickles of other programs, read for their tensors and arrays; nothing in them is ever called.

A pickle is a program: it can name any function, call it, and set any state of what comes out. Even
numpy's and PyTorch's own constructors do harm when a stranger chooses their arguments: a `dtype` of
objects over bytes of the file turns these bytes into pointers. So a pickle never gets hold of
anything but plain values and of the classes in `pickled_values.py`.
"""

import io
import pickle
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from dyhead_det.checkpoints.pickled_values import (
    STORAGE_DTYPES,
    Global,
    PickledArray,
    PickledDtype,
    Placeholder,
    Storage,
    StorageReader,
    build_value,
)

MAX_OPERATIONS = 1_000_000
"""Of a pickle; one of a trained model with its optimizer has about 50 000."""


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
        dtype = STORAGE_DTYPES.get(storage_type.path)
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
        self.stack[-1] = build_value(self.stack[-1], arguments)

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
