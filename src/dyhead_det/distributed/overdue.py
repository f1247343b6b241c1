"""Ranks that keep the others waiting are named after a minute, long before connections give up."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dyhead_det.distributed.world import get_rank

logger = logging.getLogger(__name__)

OVERDUE_SECONDS = 60.0


@dataclass(slots=True)
class Waiting:
    """What is being waited for: a rank, or None."""

    rank: int | None = None


@contextmanager
def overdue_ranks_named(seconds: float = OVERDUE_SECONDS) -> Iterator[Waiting]:
    """Warn if a block takes long, naming the rank that it says it waits for.

    Rank 0 waits for all others in turn. That it may itself be the one, rank 1 says.

    Args:
        seconds: How long is long.
    """
    waiting = Waiting()
    if get_rank() > 1:
        yield waiting
        return
    timer = threading.Timer(seconds, _warn, (waiting, seconds))
    timer.daemon = True
    timer.start()
    try:
        yield waiting
    finally:
        timer.cancel()
        timer.join()  # a process that is forked meanwhile would have half a thread


def _warn(waiting: Waiting, seconds: float) -> None:
    if waiting.rank is None:
        return
    further = ", or for one that it waits for" if waiting.rank == 0 else ""
    logger.warning(
        "rank %d waits for rank %d%s since %.0f seconds; it may read slowly, or hang",
        get_rank(),
        waiting.rank,
        further,
        seconds,
    )
