"""DistributedDataParallel: the gradients of all ranks are averaged in backward."""

import gc
import warnings
from contextlib import AbstractContextManager, nullcontext
from inspect import signature
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dyhead_det.distributed.world import get_world_size


def wrap_ddp(model: nn.Module) -> nn.Module:
    """Return what to call in training: gradients of its losses become means over all ranks.

    Every parameter that trains must take part in every call, and a model must be wrapped anew when
    other parameters train. Alone, the model itself is returned.
    """
    if get_world_size() == 1:
        return model
    gc.collect()  # an older one would go on averaging
    # Kernels of depthwise convolutions have several layouts at once; it costs them one small copy.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    # Buffers are broadcast before evaluations only; the option has another name in older PyTorch.
    is_old = "forward_sync_buffers" not in signature(DistributedDataParallel).parameters
    option: Any = {"broadcast_buffers" if is_old else "forward_sync_buffers": False}
    return DistributedDataParallel(model, gradient_as_bucket_view=True, **option)


def no_sync(ddp_model: nn.Module) -> AbstractContextManager[None]:
    """Return a context in which gradients add up on this rank and are not averaged yet."""
    if isinstance(ddp_model, DistributedDataParallel):
        return ddp_model.no_sync()
    return nullcontext()
