"""Many texts in one buffer: numpy's own text columns give every row the length of the longest."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class PackedText(Sequence[str]):
    """N texts that worker processes share without copying them, as a list of them would be.

    Attributes:
        buffer: (bytes,) all texts in UTF-8, one after the other.
        offsets: (N + 1,) where each begins.
    """

    buffer: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    @classmethod
    def pack(cls, texts: Iterable[str]) -> "PackedText":
        """Pack texts without lone surrogates."""
        encoded = [text.encode() for text in texts]
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(text) for text in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> str:  # type: ignore[override]  # no slices
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        start, end = self.offsets[row % len(self)], self.offsets[row % len(self) + 1]
        return self.buffer[start:end].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        return (self[row] for row in range(len(self)))

    def select(self, flags: NDArray[np.bool_]) -> "PackedText":
        """Return some of the texts."""
        return PackedText.pack(self[row] for row in np.flatnonzero(flags).tolist())
