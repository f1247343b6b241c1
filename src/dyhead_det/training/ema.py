"""Exponential moving average (EMA) of the weights: a second model that follows the trained one."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dyhead_det.config.schema import EMAConfig

# Parameters or buffers, as `AveragedModel` hands them over: all of one type and device.
Tensors = tuple[Tensor, ...] | list[Tensor]


def build_ema(config: EMAConfig, model: nn.Module) -> AveragedModel:
    """Return a copy of a model that `update_parameters` moves towards it, buffers too.

    Floating-point tensors are averaged, all others (indices, numbers of batches) copied. The copy
    lies on the model's device and is left out of what is compiled or distributed.
    """

    @torch.no_grad()
    def average(averages: Tensors, current: Tensors, num_averaged: Tensor | int) -> None:
        if not averages[0].is_floating_point():
            torch._foreach_copy_(averages, current)
            return
        # Not the given number, which lies on the GPU: reading it would wait for the whole step.
        decay = ema_decay(config, int(ema.n_averaged))
        update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # PyTorch's
        update(averages, current, num_averaged)

    ema = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
    return ema


def ema_decay(config: EMAConfig, num_averaged: int) -> float:
    """Return how much of the average is kept in an update.

    With `warmup` the average reaches back over a ninth of the steps so far, until that is as long
    as `decay` allows. (As in TensorFlow's ExponentialMovingAverage.)
    """
    if not config.warmup:
        return config.decay
    return min(config.decay, (1 + num_averaged) / (10 + num_averaged))
