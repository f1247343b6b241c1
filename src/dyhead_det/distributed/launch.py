"""The process group of a run that torchrun has started: joined at the start, left at the end.

Everything below `distributed/` works unchanged in one process alone, and nothing outside asks how
many there are. Messages go by gloo, which notices at once when a rank has ended; gradients go by
NCCL where there is CUDA.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from dyhead_det.distributed.collectives import is_lost_connection, lost_process
from dyhead_det.distributed.device import choose_device
from dyhead_det.distributed.environment import LaunchEnvironment, read_launch_environment
from dyhead_det.distributed.fresh_store import fresh_store
from dyhead_det.distributed.leaving import leave
from dyhead_det.distributed.world import is_main
from dyhead_det.errors import ConfigError, LostProcessError

# For one that is stuck: longer than what one does alone, scoring or the first download of weights.
TIMEOUT = timedelta(minutes=30)
# For all to start: before that they only import PyTorch, from a slow disk it may be.
JOIN_TIMEOUT = timedelta(minutes=5)


@contextmanager
def init_process_group(device_name: str) -> Iterator[torch.device]:
    """Join the process group of the ranks that torchrun has started, for the time of the block.

    An error ends the rank that meets it, and through their connections all the others. Each
    reports its own, but what happens to all together only rank 0 reports.

    Args:
        device_name: As `choose_device` takes it; of CUDA's devices each rank takes its own.

    Returns:
        The device of this rank.

    Raises:
        ConfigError: If this machine has no device for every rank, or the environment that the
            launcher has set makes no sense.
        LostProcessError: If the others do not come.
    """
    environment = read_launch_environment()
    if environment is None:
        yield choose_device(device_name)
        return
    device = _own_device(device_name, environment)
    if dist.is_initialized():  # by a block around this one
        yield device
        return
    _connect(device, environment)
    try:
        yield device
    except RuntimeError as error:
        if not is_lost_connection(error):
            leave(error, device)
            raise
        lost = lost_process(error)
        leave(lost, device)
        raise lost from error
    except BaseException as error:
        leave(error, device)
        raise
    else:
        dist.destroy_process_group()


def _own_device(name: str, environment: LaunchEnvironment) -> torch.device:
    """Return the device of this rank, one for each on CUDA."""
    try:
        return _one_of(choose_device(name), environment)
    except ConfigError as error:
        error.is_reported = environment.local_rank > 0  # all on this machine meet it
        raise


def _one_of(device: torch.device, environment: LaunchEnvironment) -> torch.device:
    num_here = environment.local_world_size
    if device.type == "cpu":
        return device
    if device.type != "cuda" or device.index is not None:
        raise ConfigError(
            f"device: {device} is one device for {num_here} processes; use cuda or cpu"
        )
    if num_here > torch.cuda.device_count():
        raise ConfigError(
            f"device: {num_here} processes on a machine with {torch.cuda.device_count()} CUDA "
            f"devices; use torchrun --nproc-per-node {torch.cuda.device_count()}"
        )
    return torch.device("cuda", environment.local_rank)


def _connect(device: torch.device, environment: LaunchEnvironment) -> None:
    rank, world_size = environment.rank, environment.world_size
    try:
        store, _, _ = next(rendezvous("env://", timeout=JOIN_TIMEOUT))
        store = fresh_store(store, rank, world_size, JOIN_TIMEOUT)
    except RuntimeError as error:  # a port in use, an address that leads nowhere, a rank that fails
        reason = str(error).splitlines()[0]
        raise LostProcessError(
            f"process {rank} of {world_size}: the processes of this run have not met at "
            f"{environment.address}: {reason}; a process that has ended says why itself"
        ) from error
    is_cuda = device.type == "cuda"
    if is_cuda:
        torch.cuda.set_device(device)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if is_cuda else "gloo",
        store=store,
        rank=rank,
        world_size=world_size,
        timeout=TIMEOUT,
        device_id=device if is_cuda else None,
    )
    if not is_main():
        logging.getLogger("dyhead_det").setLevel(logging.WARNING)
