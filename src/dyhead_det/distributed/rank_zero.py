"""What only one rank does (writing files, printing) or does before the others (downloading)."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from typing import ParamSpec

from dyhead_det.distributed.collectives import barrier
from dyhead_det.distributed.environment import get_local_rank
from dyhead_det.distributed.world import get_world_size, is_main

Arguments = ParamSpec("Arguments")


def main_only(function: Callable[Arguments, object]) -> Callable[Arguments, None]:
    """Let a function do nothing but on rank 0."""

    @wraps(function)
    def on_main(*arguments: Arguments.args, **keywords: Arguments.kwargs) -> None:
        if is_main():
            function(*arguments, **keywords)

    return on_main


def main_only_block(context: AbstractContextManager[None]) -> AbstractContextManager[None]:
    """Return a context that does nothing but on rank 0."""
    return context if is_main() else nullcontext()


@contextmanager
def local_main_first() -> Iterator[None]:
    """Let local rank 0 of each machine run a block before the other ranks there, which are silent.

    They find what has been downloaded or decoded already, and nothing is logged several times.
    """
    if get_world_size() == 1 or get_local_rank() == 0:
        yield
        barrier()
        return
    barrier()
    package_logger = logging.getLogger("dyhead_det")
    level = package_logger.level
    package_logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        package_logger.setLevel(level)
