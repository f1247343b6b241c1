"""Collectives: what ranks broadcast, gather and reduce; every one is local when the rank is alone.

What ranks say to each other goes by gloo, which notices at once when one has ended; tensors of the
model on a GPU go by NCCL.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dyhead_det.distributed.overdue import overdue_ranks_named
from dyhead_det.distributed.world import get_rank, get_world_size, is_main
from dyhead_det.errors import LostProcessError

Value = TypeVar("Value")


def all_reduce_sum(values: Tensor) -> Tensor:
    """Add up values, without their gradients, of all ranks; alone, return them as they are.

    Args:
        values: Of the same shape on every rank.
    """
    if get_world_size() == 1:
        return values
    values = values.detach().clone()
    dist.all_reduce(values)
    return values


def all_gather_numbers(*numbers: int) -> list[list[int]]:
    """Return the numbers that each rank gives, by rank; all wait for each other here.

    Rank 0 asks one rank after the other, so that it can name the one that does not answer.
    """
    if get_world_size() == 1:
        return [list(numbers)]
    of_all = torch.empty(get_world_size(), len(numbers), dtype=torch.int64)
    of_all[get_rank()] = torch.tensor(numbers)
    with _lost_connections_explained(), overdue_ranks_named() as waiting:
        if is_main():
            for rank in range(1, get_world_size()):
                waiting.rank = rank
                dist.recv(of_all[rank], src=rank)
        else:
            dist.send(of_all[get_rank()], dst=0)
        waiting.rank = 0 if get_rank() else None
        dist.broadcast(of_all, src=0)
    return [of_one.tolist() for of_one in of_all]


def barrier() -> None:
    """Return when every rank has come here."""
    all_gather_numbers(0)


def broadcast_object(compute: Callable[[], Value]) -> Value:
    """Compute an object on rank 0 alone and give it to all ranks."""
    if get_world_size() == 1:
        return compute()
    box = [compute() if is_main() else None]
    with _lost_connections_explained():
        dist.broadcast_object_list(box, src=0)
    return box[0]  # type: ignore[return-value]  # it was filled on rank 0


def gather_objects(values: list[Value]) -> list[Value]:
    """Return the values of all ranks, in the order of ranks, on rank 0, and none on the others."""
    if get_world_size() == 1:
        return values
    barrier()  # which names a rank that does not come
    lists: list[list[Value]] = [[]] * get_world_size()
    with _lost_connections_explained():
        dist.gather_object(values, lists if is_main() else None, dst=0)
    return [value for of_one in lists for value in of_one] if is_main() else []


def all_gather_objects(value: Value) -> list[Value]:
    """Return the value of every rank, by rank, on every rank."""
    if get_world_size() == 1:
        return [value]
    barrier()  # which names a rank that does not come
    of_all: list[Value | None] = [None] * get_world_size()
    with _lost_connections_explained():
        dist.all_gather_object(of_all, value)
    return of_all  # type: ignore[return-value]  # they were filled


def broadcast_buffers(module: nn.Module) -> None:
    """Give all ranks the buffers of rank 0: those of batch norms depend on its images."""
    if get_world_size() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


def is_lost_connection(error: BaseException) -> bool:
    """Return whether an error is the end of another rank; gloo and NCCL have no class of theirs."""
    is_named = any(name in str(error) for name in ("gloo", "NCCL"))
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and is_named)


def lost_process(error: BaseException) -> LostProcessError:
    """Return the error for people that a lost connection means."""
    lost = LostProcessError(
        "another process of this run has ended or does not answer; its own message says why"
    )
    lost.__cause__ = error
    return lost


@contextmanager
def _lost_connections_explained() -> Iterator[None]:
    """Turn what a lost connection raises into an error for people."""
    try:
        yield
    except RuntimeError as error:
        raise lost_process(error) from error
