"""A rank that hangs in the middle of a step is named after a minute, with what it was doing.

Before a step ranks ask each other (`all_gather_numbers`), so that a missing one is known by name.
Inside a step they wait in the all-reduce of backward, where nobody can say for whom. So after a
minute in the same step a thread of each rank writes to the store where it is, and rank 0 names the
ones that are the least far: the others wait for them. Up to then a step costs one timer.
"""

import json
import logging
import platform
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch.distributed as dist
from torch.distributed import Store  # type: ignore[attr-defined]  # not in its list of exports

from dyhead_det.distributed.agreement import name_ranks
from dyhead_det.distributed.overdue import OVERDUE_SECONDS
from dyhead_det.distributed.world import get_rank, get_world_size
from dyhead_det.escaping import printable

logger = logging.getLogger(__name__)

# For all ranks to write where they are; their clocks for a step start within less.
GRACE_SECONDS = 5.0


@dataclass(slots=True)
class StepPosition:
    """Where in a step a rank is.

    num_phases: how many it has entered; num_gradients: how many parameters have a gradient, which
    like host is filled in when the others shall know.
    """

    step: int = 0
    phase: str = ""
    num_phases: int = 0
    num_gradients: int = 0
    host: str = ""

    def begin(self, step: int) -> None:
        """Begin a step, counted from 1."""
        self.step, self.num_phases = step, 0
        self.enter("its preparation")

    def enter(self, phase: str) -> None:
        """Begin what messages call so."""
        self.phase = phase
        self.num_phases += 1

    @property
    def distance(self) -> tuple[int, int]:
        """How far it is; positions in one step compare by it."""
        return self.num_phases, self.num_gradients

    def __str__(self) -> str:
        return f"{self.phase} with {self.num_gradients} gradients"


@contextmanager
def slow_step_explained(
    position: StepPosition,
    count_gradients: Callable[[], int],
    *,
    seconds: float = OVERDUE_SECONDS,
    grace: float = GRACE_SECONDS,
) -> Iterator[None]:
    """Warn if a step takes long, naming the ranks that the others wait for.

    Args:
        position: of this rank, kept up to date by the step.
        count_gradients: of parameters, so far; called in another thread.
        seconds: how long is long.
        grace: how long the others have to say where they are.
    """
    if get_world_size() == 1:
        yield
        return
    is_over = threading.Event()
    store = dist.distributed_c10d._get_default_store()

    def explain() -> None:
        try:
            position.num_gradients, position.host = count_gradients(), platform.node()
            store.set(_key(get_rank()), json.dumps(asdict(position)))
            if get_rank() < 2 and not is_over.wait(grace):
                _warn(_positions(store, position.step), position.step, seconds)
        except RuntimeError as error:  # the store is gone, and the run with it
            logger.debug("where the other ranks are is not known: %s", error)

    timer = threading.Timer(seconds, explain)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        is_over.set()
        timer.cancel()
        timer.join()  # a process that is forked meanwhile would have half a thread


def _key(rank: int) -> str:
    return f"slow step/{rank}"


def _positions(store: Store, step: int) -> list[StepPosition | None]:
    """Return where each rank is, None for one that has not said so for this step."""
    positions: list[StepPosition | None] = []
    for rank in range(get_world_size()):
        position = None
        if store.check([_key(rank)]):
            position = StepPosition(**json.loads(store.get(_key(rank))))
        positions.append(position if position is not None and position.step == step else None)
    return positions


def _warn(positions: Sequence[StepPosition | None], step: int, seconds: float) -> None:
    """Let rank 0 tell who is the least far; that it is silent itself, rank 1 tells."""
    if get_rank() == 0 or positions[0] is None:
        ranks = describe(dict(enumerate(positions)))
        logger.warning("step %d takes more than %.0f seconds: %s", step, seconds, ranks)


def describe(positions: Mapping[int, StepPosition | None]) -> str:
    """Return which ranks the others wait for, and where in the step they are.

    Args:
        positions: by rank; None for one that did not say so, all of whose threads stand still.
    """
    known = {rank: position for rank, position in positions.items() if position is not None}
    silent = [rank for rank in positions if rank not in known]
    if silent:
        return f"{name_ranks(silent)} cannot even say where in it: stopped, or its machine lost"
    least = min(position.distance for position in known.values())
    most = max(known.values(), key=lambda position: position.distance)
    if most.distance == least:
        return f"all ranks are in {most}; it is slow, or their communication hangs"
    last = [rank for rank, position in known.items() if position.distance == least]
    first = known[last[0]]
    return (
        f"{name_ranks(last)} on {printable(first.host)} is in {first}, and the others, in {most}, "
        "wait for it; it is slow, or hangs"
    )
