"""A store for processes to find each other in, without what an earlier start of them left there.

torchrun keeps one store as long as it runs itself. Processes that it starts again after a failure
would read in it the addresses of those that have ended, and wait for them. How often it has started
them does not help: each machine counts by itself (github.com/pytorch/pytorch/issues/135712).
"""

import time
import uuid
from datetime import timedelta

from torch.distributed import (  # type: ignore[attr-defined]  # not in its list of exports
    DistStoreError,
    PrefixStore,
    Store,
)

PAUSE_SECONDS = 0.02


def fresh_store(store: Store, rank: int, world_size: int, timeout: timedelta) -> Store:
    """Agree with all other processes on a part of a store that nobody has written to.

    Process 0 chooses its name. The others ask for it under names of their own, which no earlier
    start can have used, and it answers whoever asks until each has got it.

    Args:
        store: What all processes share; may hold anything from earlier calls.
        rank: Of this process.
        world_size: How many there are.
        timeout: How long to wait for the others.

    Raises:
        RuntimeError: If another process does not come in time (`DistStoreError`).
    """
    own = uuid.uuid4().hex
    if rank == 0:
        deadline = time.monotonic() + timeout.total_seconds()
        for other in range(1, world_size):
            _answer(store, other, own, deadline)
        return PrefixStore(own, store)
    store.set(f"asks/{rank}", own)
    store.wait([f"answer/{own}"], timeout)
    name = store.get(f"answer/{own}").decode()
    store.set(f"heard/{name}/{rank}", "")
    return PrefixStore(name, store)


def _answer(store: Store, other: int, name: str, deadline: float) -> None:
    """Tell a process the name; who asked last may be one that has ended, so go on until heard."""
    while not store.check([f"heard/{name}/{other}"]):
        if time.monotonic() > deadline:
            raise DistStoreError(f"process {other} does not come")
        if store.check([f"asks/{other}"]):
            store.set(f"answer/{store.get(f'asks/{other}').decode()}", name)
        time.sleep(PAUSE_SECONDS)
