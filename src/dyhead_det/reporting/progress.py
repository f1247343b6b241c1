"""Progress of a training run: a bar on a terminal, lines in a log file."""

import logging
import sys
import time
from collections.abc import Sequence

import torch
from tqdm import tqdm

from dyhead_det.distributed.world import is_main
from dyhead_det.reporting.loading_advice import TOLERABLE_SHARE
from dyhead_det.reporting.stopwatch import LOADING, STEPS, Stopwatch

logger = logging.getLogger(__name__)

_FULL_BAR = (
    "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} "
    "[{elapsed}<{remaining}, {rate_fmt}{postfix}]"
)
_SHORT_BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} <{remaining}{postfix}"
_TINY_BAR = "{percentage:3.0f}%|{bar}| <{remaining}{postfix}"
_SHORTEST_BAR = 7  # columns


class TrainProgress:
    """Shows losses, learning rate, images per second, time left and memory of a training run.

    It is to be closed (`contextlib.closing`).

    Attributes:
        num_images: images trained on since the program started.
    """

    def __init__(
        self, *, first_step: int, num_steps: int, device: torch.device, stopwatch: Stopwatch
    ) -> None:
        self.num_images = 0
        self._num_steps = num_steps
        self._first_step = first_step
        self._step = first_step
        self._device = device
        self._stopwatch = stopwatch
        self._is_terminal = sys.stderr.isatty() and is_main()
        self._bar = tqdm(
            total=num_steps,
            initial=first_step,
            desc="train",
            unit="step",
            dynamic_ncols=True,
            disable=not self._is_terminal,
        )
        self._started_at = time.monotonic()
        self._start_window()

    def close(self) -> None:
        """End the bar, so that what is logged next stands below it."""
        self._bar.close()

    def advance(self, step: int, *, num_images: int, loss: float, lr: float) -> None:
        """Note that `step` steps are done."""
        num_steps, self._step = step - self._step, step
        self.num_images += num_images
        if self._is_terminal:
            self._choose_layout(
                _layouts(
                    loss=loss,
                    lr=lr,
                    images_per_second=self.images_per_second(),
                    memory=memory_gib(self._device),
                    data_share=self.data_share(),
                )
            )
        self._bar.update(num_steps)

    def _choose_layout(self, layouts: Sequence[tuple[str, str]]) -> None:
        """Show the fullest layout that leaves room for a bar, or else the shortest."""
        state = self._bar.format_dict
        columns = state["ncols"]
        for bar_format, postfix in layouts:
            shown = {"n": self._step, "bar_format": bar_format.replace("{bar}", "")}
            text = {**state, **shown, "postfix": postfix}
            if columns is None or len(tqdm.format_meter(**text)) + _SHORTEST_BAR <= columns:
                break
        self._bar.bar_format = bar_format
        self._bar.set_postfix_str(postfix, refresh=False)

    def images_per_second(self) -> float:
        """Return the speed since the last call of `log`, without evaluating and saving."""
        return (self.num_images - self._images_before) / max(self._window_seconds(), 1e-9)

    def data_share(self) -> float:
        """Return which part of the time since the last call of `log` went in waiting for data."""
        waited = self._stopwatch.seconds().get(LOADING, 0.0) - self._seconds_before.get(LOADING, 0)
        return waited / max(self._window_seconds(), 1e-9)

    def log(self, values: dict[str, float]) -> None:
        """Write a line with losses where there is no terminal to draw a bar on."""
        if not self._is_terminal:
            done = self._step - self._first_step
            elapsed = time.monotonic() - self._started_at
            left = elapsed / max(done, 1) * (self._num_steps - self._step)
            shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            logger.info(
                "step %d/%d, %s, %s left", self._step, self._num_steps, shown, format_duration(left)
            )
        self._start_window()

    def _start_window(self) -> None:
        self._images_before = self.num_images
        self._seconds_before = self._stopwatch.seconds()

    def _window_seconds(self) -> float:
        """Return the seconds of training and of waiting for data since the last `log`."""
        now = self._stopwatch.seconds()
        return sum(
            now.get(part, 0) - self._seconds_before.get(part, 0) for part in (LOADING, STEPS)
        )


def _layouts(
    *, loss: float, lr: float, images_per_second: float, memory: float, data_share: float
) -> list[tuple[str, str]]:
    """Return formats of tqdm and what stands behind them, from the fullest to the shortest.

    A terminal of 80 columns has no room for everything: the learning rate goes first, the loss and
    the warning of slow data stay the longest.
    """
    is_slow = data_share > TOLERABLE_SHARE
    full = [
        f"loss {loss:.3f}",
        f"lr {lr:.2g}",
        f"{images_per_second:.1f} images/s",
        f"{memory:.1f} GiB",
        *([f"{data_share:.0%} waiting for data"] if is_slow else []),
    ]
    short = [
        f"loss {loss:.3f}",
        *([f"{data_share:.0%} waiting"] if is_slow else []),
        f"{memory:.1f} GiB",
        f"{images_per_second:.1f} img/s",
    ]
    return [
        (_FULL_BAR, ", ".join(full)),
        *((_SHORT_BAR, ", ".join(short[:number])) for number in range(len(short), 0, -1)),
        (_TINY_BAR, short[0]),
    ]


def format_duration(seconds: float) -> str:
    """Write a time span as h:mm:ss or m:ss."""
    return str(tqdm.format_interval(seconds))


def memory_gib(device: torch.device) -> float:
    """Return the most memory used so far, of the GPU or else of this process, in GiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if sys.platform == "win32":  # which does not report it
        return 0.0
    import resource  # noqa: PLC0415 - not there on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak) / (2**30 if sys.platform == "darwin" else 2**20)
