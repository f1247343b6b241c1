"""Graceful shutdown: signals take effect only between two steps or batches, where states are whole.

Ranks agree before every batch, so that they stop at the same one.
"""

import os
import signal
import threading
import traceback
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

from dyhead_det.distributed.collectives import all_gather_numbers
from dyhead_det.errors import WorkerDiedError

_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


_SIGCHLD: int = getattr(signal, "SIGCHLD", 0)  # Windows has none


class StopRequested(Exception):  # noqa: N818 - a request, not an error
    """Raised by `StopSignals.check` after a signal has come."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number


class Batches(Sized, Protocol):
    """What a loader is to a loop: a length and batches."""

    def __iter__(self) -> Iterator[Any]: ...


@contextmanager
def graceful_shutdown() -> Iterator["StopSignals"]:
    """Note Ctrl-C, SIGTERM and a lost terminal during a block instead of dying at once.

    A second Ctrl-C or lost terminal acts as if this were not here. A second SIGTERM does nothing:
    schedulers and torchrun both send it to the same process, and have SIGKILL to insist.

    The death of a worker process is noted too: PyTorch would raise an error wherever the program
    is, in the middle of a step.

    Python handles signals in the main thread only; in another one they act as ever.
    """
    stop = StopSignals()
    if threading.current_thread() is threading.main_thread():
        stop.take_over_signals()
    try:
        yield stop
    finally:
        stop.give_back_signals()


class StopSignals:
    """The signals that have come, and batches that heed them; see `graceful_shutdown`."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}
        self._has_lost_child = False

    def take_over_signals(self) -> None:
        """Take the place of the handlers of signals that end a program.

        A signal that is ignored stays so, as under `nohup`. Handlers that a program in another
        language has set (None) could not be put back.
        """
        kept = (None, signal.SIG_IGN)
        known = [number for number in _SIGNALS if signal.getsignal(number) not in kept]
        self._previous = {number: signal.signal(number, self._note) for number in known}

    def give_back_signals(self) -> None:
        """Put the handlers back that were there."""
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        self._previous = {}

    def check(self) -> None:
        """Raise `StopRequested` if a signal has come to this process; errors as `check_workers`."""
        self.check_workers()
        if self.received is not None:
            raise StopRequested(self.received)

    def check_workers(self) -> None:
        """Raise PyTorch's error if a worker process has died."""
        if self._has_lost_child:
            self._has_lost_child = False
            self._previous[_SIGCHLD](_SIGCHLD, None)

    def watch(self, batches: Batches) -> "WatchedBatches":
        """Return the same batches; `StopRequested` is raised before one when a signal has come."""
        return WatchedBatches(batches, self)

    def take_over_deaths(self) -> None:
        """Take the place of PyTorch's handler, which is there once worker processes are."""
        if not self._previous:  # signals are left alone
            return
        handler = signal.getsignal(_SIGCHLD) if _SIGCHLD else None
        if callable(handler) and handler != self._note_death:
            self._previous[_SIGCHLD] = handler
            signal.signal(_SIGCHLD, self._note_death)

    def _note_death(self, _number: int, _frame: FrameType | None) -> None:
        self._has_lost_child = True

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = number
        if number != signal.SIGTERM:
            signal.signal(number, self._previous[number])
        if number == getattr(signal, "SIGHUP", None):
            _leave_terminal()


class WatchedBatches:
    """Batches of a loader, in step with those of the other processes, until a signal comes.

    A process whose share has ended waits here for the others; steps for which none of the processes
    has an image are left out.

    Attributes:
        num_images: in the last batch, of all processes together.
    """

    def __init__(self, batches: Batches, stop: StopSignals) -> None:
        self._batches = batches
        self._stop = stop
        self.num_images = 0

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._batches)
        while True:
            batch = self._next(batches)
            images = () if batch is None else batch[0]
            signals, are_left, num_images = zip(
                *all_gather_numbers(self._stop.received or 0, batch is not None, len(images)),
                strict=True,
            )
            if max(signals):
                raise StopRequested(max(signals))
            if not any(are_left):
                return
            self.num_images = sum(num_images)
            if batch is not None and self.num_images:
                yield batch

    def _next(self, batches: Iterator[Any]) -> Any:  # noqa: ANN401 - whatever a loader gives
        """Return the next batch, None after the last and after a signal.

        Raises:
            WorkerDiedError: If a process that reads images has died, cannot be started, or has no
                shared memory for its images.
        """
        if self._stop.received is not None:  # by the workers too, it may be, and they are gone
            return None
        try:
            batch = next(batches, None)
            self._stop.take_over_deaths()
            self._stop.check_workers()
        except (OSError, RuntimeError) as error:  # no OSError is about images: these are values
            if self._stop.received is not None:
                return None
            has_died = str(error).startswith(("DataLoader worker", "Pin memory thread"))
            is_about_shared_memory = "file </torch_" in str(error)
            if isinstance(error, RuntimeError) and not (has_died or is_about_shared_memory):
                raise
            reason = str(error).splitlines()[-1].strip()  # behind the traceback of the process
            msg = (
                f"a process that reads images {'died' if has_died else 'failed'} ({reason}); lower "
                "data.num_workers or free memory, in /dev/shm too (docker: --shm-size)"
            )
            # Their references to each other would keep the processes, whose end Python awaits.
            traceback.clear_frames(error.__traceback__)
            raise WorkerDiedError(msg) from error
        return batch


def _leave_terminal() -> None:
    """Send further output nowhere: writing to a terminal that is gone would end the run."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        if os.isatty(descriptor):
            os.dup2(nowhere, descriptor)
    os.close(nowhere)
