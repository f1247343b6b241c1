"""Wall-clock time by phase of a run (data loading, steps, evaluation ...), each second once."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Batch = TypeVar("Batch")

LOADING = "loading data"
STEPS = "training steps"
EVALUATION = "evaluation"
SAVING = "saving checkpoints"
REPORTING = "pictures and reports"
OTHER = "everything else"


class Stopwatch:
    """Counts the seconds of named parts; what runs inside another part is not counted there too.

    Nothing waits for a GPU to be able to measure it. A training step reads its losses, which waits
    for their computation; what still runs on the GPU after that is counted where the program waits
    next, which is in the next step as long as the data come in time.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._seconds: dict[str, float] = {}
        self._open_parts = [OTHER]
        self._counted_until = now()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time until the end of the block for a part."""
        self._count()
        self._open_parts.append(name)
        try:
            yield
        finally:
            self._count()
            self._open_parts.pop()

    def waits(self, name: str, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Give the same batches, and count the time until each is there for a part."""
        iterator = iter(batches)
        while True:
            with self.part(name):
                try:
                    batch = next(iterator)
                except StopIteration:
                    return
            yield batch

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each part until now, the longest first."""
        self._count()
        ordered = sorted(self._seconds.items(), key=lambda item: item[1], reverse=True)
        return dict(ordered)

    def _count(self) -> None:
        now, part = self._now(), self._open_parts[-1]
        self._seconds[part] = self._seconds.get(part, 0.0) + now - self._counted_until
        self._counted_until = now
