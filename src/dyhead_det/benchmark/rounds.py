"""Contestants in turn, round by round, so that a busy machine disturbs all of them alike."""

import multiprocessing
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from dyhead_det.benchmark.worker import Case, Contestant, serve
from dyhead_det.errors import OutOfMemoryError
from dyhead_det.escaping import printable


@dataclass(slots=True)
class Result:
    """What one contestant took in one case.

    precision: what it computes in.
    rounds: seconds of each run, by round.
    peak_mib: the most memory of its process, libraries included; on a GPU of the GPU.
    """

    contestant: Contestant
    case: Case
    precision: str
    rounds: list[list[float]] = field(default_factory=list)
    peak_mib: float = float("nan")

    @property
    def seconds(self) -> list[float]:
        """Those of all runs, the shortest first."""
        return sorted(seconds for each in self.rounds for seconds in each)

    @property
    def median(self) -> float:
        """Seconds of a run."""
        return statistics.median(self.seconds)

    @property
    def p90(self) -> float:
        """Seconds that nine of ten runs do not exceed."""
        return self.seconds[-(-9 * len(self.seconds) // 10) - 1]

    @property
    def images_per_second(self) -> float:
        """By the median."""
        return self.case.batch_size / self.median

    def speedup(self, baseline: "Result") -> float:
        """Return how many times faster it is: the median over rounds, each compared by itself."""
        return statistics.median(
            statistics.median(theirs) / statistics.median(own)
            for own, theirs in zip(self.rounds, baseline.rounds, strict=True)
        )


def measure(
    contestants: Sequence[Contestant],
    case: Case,
    *,
    num_rounds: int,
    num_runs: int,
    tell: Callable[[], object],
) -> list[Result]:
    """Let contestants run in turn; each round begins with the next of them.

    Args:
        contestants: one process each, all loaded before the first round.
        case: on what they run.
        num_rounds: how often each has its turn.
        num_runs: how often it runs then.
        tell: called after every turn.

    Returns:
        What each took, in their order.

    Raises:
        DyHeadDetError: if one cannot be loaded or run, or its process ends.
    """
    results, connections = [], []
    with ExitStack() as processes:
        for contestant in contestants:
            connection = processes.enter_context(_process(contestant, case))
            results.append(Result(contestant, case, str(_answer(connection, contestant))))
            connections.append(connection)
        turns = list(zip(connections, results, strict=True))
        for first in range(num_rounds):
            start = first % len(turns)
            for connection, result in turns[start:] + turns[:start]:
                result.rounds.append(_ask(num_runs, connection, result.contestant))
                tell()
        for connection, result in turns:
            result.peak_mib = _ask(None, connection, result.contestant)
    return results


@contextmanager
def _process(contestant: Contestant, case: Case) -> Iterator[Connection]:
    """Start a contestant's process; end it whatever happens."""
    # Not forked, which would give it this process's memory.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, contestant, case), daemon=True)
    process.start()
    theirs.close()  # so that its end is noticed
    try:
        yield ours
    finally:
        ours.close()
        process.terminate()
        process.join()


def _ask(num_runs: int | None, connection: Connection, contestant: Contestant) -> Any:  # noqa: ANN401 - see `serve`
    """Ask for runs, or by None for the peak, and wait for the answer."""
    with suppress(ConnectionError):  # which the answer, or its absence, explains
        connection.send(num_runs)
    return _answer(connection, contestant)


def _answer(connection: Connection, contestant: Contestant) -> Any:  # noqa: ANN401 - see `serve`
    """Wait for an answer.

    Raises:
        DyHeadDetError: if it is an error, or none comes any more.
    """
    try:
        answer = connection.recv()
    except (EOFError, ConnectionError) as error:
        raise OutOfMemoryError(
            f"the process that ran {printable(contestant.path)} was ended, perhaps for its memory; "
            "lower --batch-size or --size"
        ) from error
    if isinstance(answer, Exception):
        raise answer
    return answer
