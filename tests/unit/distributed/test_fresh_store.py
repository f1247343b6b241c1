"""How processes that are started again find each other, whatever the earlier ones left behind."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from dyhead_det.distributed.fresh_store import fresh_store

WAIT = timedelta(seconds=20)


def meet(store, world_size, *, order):
    """Let all processes of one start agree; return what each then reads that process 0 wrote."""

    def join(rank):
        own = fresh_store(store, rank, world_size, WAIT)
        if rank == 0:
            own.set("address", "of this start")
        own.wait(["address"], WAIT)
        was_new = own.add(f"seen by {rank}", 1) == 1
        return own.get("address").decode(), was_new

    with ThreadPoolExecutor(world_size) as threads:
        return list(threads.map(join, order))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_each_start_gets_a_part_of_its_own(order):
    store = dist.HashStore()
    for _ in range(3):
        assert meet(store, 3, order=order) == [("of this start", True)] * 3


def test_who_asked_and_ended_is_not_waited_for():
    store = dist.HashStore()
    store.set("asks/1", "one that has ended")
    assert meet(store, 2, order=(0, 1)) == [("of this start", True)] * 2


def test_fewer_processes_than_before_agree_too():
    store = dist.HashStore()
    meet(store, 3, order=(0, 1, 2))
    assert meet(store, 2, order=(1, 0)) == [("of this start", True)] * 2


@pytest.mark.parametrize("rank", [0, 1])
def test_one_that_does_not_come_is_an_error(rank):
    with pytest.raises(dist.DistStoreError):
        fresh_store(dist.HashStore(), rank, 2, timedelta(seconds=0.1))
