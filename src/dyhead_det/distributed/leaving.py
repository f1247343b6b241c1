"""How a rank leaves a run that has failed: soon, with its own exit code, and all others with it."""

import gc
import signal
import threading
import traceback
from contextlib import suppress

import torch
import torch.distributed as dist

from dyhead_det.distributed.collectives import barrier
from dyhead_det.distributed.world import get_rank, get_world_size, is_main
from dyhead_det.errors import DyHeadDetError, LostProcessError, RanksDifferError, StoppedError

# A failed process may hang at its exit, waiting for what the others will never send.
SECONDS_TO_LEAVE = 30


def leave(error: BaseException, device: torch.device) -> None:
    """Make sure that this process ends soon, with its own exit code, and by that all the others.

    A model that the frames of an error keep alive keeps the connections' threads alive, which
    makes the interpreter abort at its exit. NCCL is left alone: it waits for the others.
    """
    is_together = isinstance(error, StoppedError | RanksDifferError)
    if isinstance(error, DyHeadDetError) and not is_main():
        error.is_reported = is_together or isinstance(error, LostProcessError)
        error.args = (f"process {get_rank()} of {get_world_size()}: {error}",)
    if threading.current_thread() is threading.main_thread():
        # torchrun sends it to those that are left when one has ended; it would hide the exit code.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if is_together:
        with suppress(LostProcessError):  # rank 0 may still be writing
            barrier()
    elif hasattr(signal, "alarm"):
        signal.alarm(SECONDS_TO_LEAVE)
    cause: BaseException | None = error
    while cause is not None:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__ or cause.__context__
    gc.collect()
    if is_together or device.type == "cpu":
        dist.destroy_process_group()
