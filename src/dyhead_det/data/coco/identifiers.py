"""The ids of one section of a COCO file: whole numbers, or text that is numbered from 1 on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dyhead_det.data.coco import records as read
from dyhead_det.data.coco.records import Flags, Integers

Key = int | str


@dataclass(frozen=True)
class Identifiers:
    """The ids of the N records of a section.

    Attributes:
        numbers: (N,) the ids, 0 where there is none.
        is_known: (N,) the record has an id.
        keys: the ids as they are written, where any is text and all are numbered; else None.
    """

    numbers: Integers
    is_known: Flags
    keys: tuple[Key | None, ...] | None = None

    @classmethod
    def of(cls, written: Sequence[object]) -> "Identifiers":
        """Read ids; equal ones get equal numbers."""
        numbers, is_known = read.integers(written)
        if is_known.all() or not any(isinstance(_key(value), str) for value in written):
            return cls(numbers, is_known)
        keys = tuple(_key(value) for value in written)
        number_of_key = {key: number for number, key in enumerate(dict.fromkeys(keys), start=1)}
        return cls(
            np.array([number_of_key[key] for key in keys], dtype=np.int64),
            np.array([key is not None for key in keys], dtype=np.bool_),
            keys,
        )

    def __getitem__(self, row: int) -> Key | None:
        """Return the id of a record as it is written."""
        return int(self.numbers[row]) if self.keys is None else self.keys[row]

    def texts(self) -> list[Key]:
        """Return what was numbered: each id once, nothing where all are whole numbers."""
        return [key for key in dict.fromkeys(self.keys or ()) if key is not None]

    def select(self, flags: Flags) -> "Identifiers":
        """Return the ids of some records, with the same numbers."""
        keys = self.keys
        if keys is not None:
            keys = tuple(keys[row] for row in np.flatnonzero(flags))
        return Identifiers(self.numbers[flags], self.is_known[flags], keys)

    def rows_of(self, written: Sequence[object]) -> Integers:
        """Return the row of the first record with each of these ids, (M,); -1 without one."""
        if self.keys is not None:
            row_of_key = {key: row for row, key in reversed(list(enumerate(self.keys)))}
            row_of_key.pop(None, None)
            keys = (_key(value) for value in written)
            rows = (-1 if key is None else row_of_key.get(key, -1) for key in keys)
            return np.fromiter(rows, dtype=np.int64, count=len(written))
        wanted, is_readable = read.integers(written)
        known_rows = np.flatnonzero(self.is_known)
        if not len(known_rows):
            return np.full(len(written), -1, dtype=np.int64)
        ordered = known_rows[np.argsort(self.numbers[known_rows], kind="stable")]
        position = np.searchsorted(self.numbers[ordered], wanted).clip(max=len(ordered) - 1)
        rows = ordered[position]
        return np.where(is_readable & (self.numbers[rows] == wanted), rows, -1)


def _key(value: object) -> Key | None:
    """Return an id as it is compared with others: ``"7"`` is 7."""
    number = read.as_integer(value)
    if number is not None:
        return number
    return value if isinstance(value, str) and value.strip() else None
