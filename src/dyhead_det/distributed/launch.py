"""Several processes that train one detector: all that each needs of the others.

torchrun starts them; every function here works unchanged in one process alone, and nothing outside
asks which process it runs in. What the processes say to each other goes by gloo, which notices at
once when one has ended; gradients go by NCCL where there is CUDA.
"""

import gc
import logging
import os
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec, TypedDict, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from dyhead_det.distributed.device import choose_device
from dyhead_det.distributed.fresh_store import fresh_store
from dyhead_det.distributed.world import num_processes
from dyhead_det.errors import ConfigError, DyHeadDetError, LostProcessError, StoppedError

logger = logging.getLogger(__name__)

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")

# For one that is stuck: longer than what one does alone, scoring or the first download of weights.
TIMEOUT = timedelta(minutes=30)
# A failed process may hang at its exit, waiting for what the others will never send.
SECONDS_TO_LEAVE = 30


@contextmanager
def joined(device_name: str) -> Iterator[torch.device]:
    """Join the processes that torchrun has started, for the time of the block.

    An error ends the process that meets it, and through their connections all the others. Each
    tells its own, but what happens to all together only the main process tells.

    Args:
        device_name: as `choose_device` takes it; of CUDA's devices each process takes its own.

    Returns:
        The device of this process.

    Raises:
        ConfigError: if this machine has no device for every process.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or not dist.is_torchelastic_launched():
        yield choose_device(device_name)
        return
    device = _own_device(device_name)
    _connect(device)
    try:
        yield device
    except RuntimeError as error:
        if not _is_lost_connection(error):
            _leave(error, device)
            raise
        lost = _lost_process(error)
        _leave(lost, device)
        raise lost from error
    except BaseException as error:
        _leave(error, device)
        raise
    else:
        dist.destroy_process_group()


class Share(TypedDict):
    """Which part of a data set a process takes: the keywords of `build_train_loader`."""

    rank: int
    world_size: int


def own_share() -> Share:
    """Return the part of this process."""
    return Share(rank=dist.get_rank() if num_processes() > 1 else 0, world_size=num_processes())


def is_main() -> bool:
    """Return whether this is the process that writes and talks."""
    return own_share()["rank"] == 0


def main_only(function: Callable[Arguments, object]) -> Callable[Arguments, None]:
    """Let a function do nothing but in the main process."""

    @wraps(function)
    def in_main(*arguments: Arguments.args, **keywords: Arguments.kwargs) -> None:
        if is_main():
            function(*arguments, **keywords)

    return in_main


def main_only_block(context: AbstractContextManager[None]) -> AbstractContextManager[None]:
    """Return a context that does nothing but in the main process."""
    return context if is_main() else nullcontext()


def from_main(compute: Callable[[], Value]) -> Value:
    """Compute something in the main process alone and give it to all."""
    if num_processes() == 1:
        return compute()
    box = [compute() if is_main() else None]
    with _answered():
        dist.broadcast_object_list(box, src=0)
    return box[0]  # type: ignore[return-value]  # it was filled in the main process


def gathered(values: list[Value]) -> list[Value]:
    """Return the values of all processes in the main process, none in the others."""
    if num_processes() == 1:
        return values
    lists: list[list[Value]] = [[]] * num_processes()
    with _answered():
        dist.gather_object(values, lists if is_main() else None, dst=0)
    return [value for one in lists for value in one] if is_main() else []


def from_all(*numbers: int) -> list[list[int]]:
    """Return the numbers that each process gives; all wait for each other here."""
    own = torch.tensor(numbers)
    if num_processes() == 1:
        return [list(numbers)]
    all_of_them = [torch.empty_like(own) for _ in range(num_processes())]
    with _answered():
        dist.all_gather(all_of_them, own)
    return [one.tolist() for one in all_of_them]


def wait_for_all() -> None:
    """Return when every process has come here."""
    from_all(0)


@contextmanager
def one_per_machine_first() -> Iterator[None]:
    """Let one process on each machine run a block before the others there, who run it silently.

    It finds what has been downloaded or decoded already, and nothing is said several times.
    """
    is_first = int(os.environ.get("LOCAL_RANK", "0")) == 0 or num_processes() == 1
    if is_first:
        yield
        wait_for_all()
        return
    wait_for_all()
    package_logger = logging.getLogger("dyhead_det")
    level = package_logger.level
    package_logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        package_logger.setLevel(level)


def parallel(detector: nn.Module) -> nn.Module:
    """Return what to call in training: gradients of its losses become means over all processes.

    Every parameter that trains must take part in every call, and `parallel` must be called again
    when other parameters train.
    """
    if num_processes() == 1:
        return detector
    gc.collect()  # an older one would go on averaging
    # Kernels of depthwise convolutions have several layouts at once; it costs them one small copy.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    # Buffers are shared before evaluations only; the option has another name in older PyTorch.
    is_old = "forward_sync_buffers" not in signature(DistributedDataParallel).parameters
    option: Any = {"broadcast_buffers" if is_old else "forward_sync_buffers": False}
    return DistributedDataParallel(detector, gradient_as_bucket_view=True, **option)


@contextmanager
def gradients_shared(network: nn.Module, *, when: bool) -> Iterator[None]:
    """Average gradients over the processes in this block, or only add them up in this one."""
    if when or not isinstance(network, DistributedDataParallel):
        yield
    else:
        with network.no_sync():
            yield


def share_buffers(module: nn.Module) -> None:
    """Give all processes the main process's buffers: those of batch norms depend on its images."""
    if num_processes() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


def was_restarted() -> bool:
    """Return whether torchrun has started this run again, after a process or a machine was lost."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def _own_device(name: str) -> torch.device:
    """Return the device of this process, one for each on CUDA."""
    try:
        return _one_of(choose_device(name), num_here=int(os.environ["LOCAL_WORLD_SIZE"]))
    except ConfigError as error:
        error.is_told = int(os.environ["LOCAL_RANK"]) > 0  # all on this machine meet it
        raise


def _one_of(device: torch.device, *, num_here: int) -> torch.device:
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
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]))


def _connect(device: torch.device) -> None:
    store, rank, world_size = next(rendezvous("env://", timeout=TIMEOUT))
    store = fresh_store(store, rank, world_size, TIMEOUT)
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


def _leave(error: BaseException, device: torch.device) -> None:
    """Make sure that this process ends soon, with its own exit code, and by that all the others.

    A network that the frames of an error keep alive keeps the connections' threads alive, which
    makes the interpreter abort at its exit. NCCL is left alone: it waits for the others.
    """
    if isinstance(error, DyHeadDetError) and not is_main():
        error.is_told = isinstance(error, StoppedError | LostProcessError)
        error.args = (f"process {dist.get_rank()} of {num_processes()}: {error}",)
    is_together = isinstance(error, StoppedError)
    if is_together:
        with suppress(LostProcessError):  # the main one may still be writing
            wait_for_all()
    elif hasattr(signal, "alarm"):
        signal.alarm(SECONDS_TO_LEAVE)
    # torchrun sends it to those that are left when one has ended; it would hide the exit code.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cause: BaseException | None = error
    while cause is not None:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__ or cause.__context__
    gc.collect()
    if is_together or device.type == "cpu":
        dist.destroy_process_group()


@contextmanager
def _answered() -> Iterator[None]:
    """Turn what a lost connection raises into an error for people."""
    try:
        yield
    except RuntimeError as error:
        raise _lost_process(error) from error


def _is_lost_connection(error: BaseException) -> bool:
    """Return whether DDP met the end of another process: gloo and NCCL raise no class of theirs."""
    is_named = any(name in str(error) for name in ("gloo", "NCCL"))
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and is_named)


def _lost_process(error: BaseException) -> LostProcessError:
    lost = LostProcessError(
        "another process of this run has ended or does not answer; its own message says why"
    )
    lost.__cause__ = error
    return lost
