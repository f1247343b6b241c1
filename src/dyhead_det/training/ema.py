"""The moving average of the weights: a second detector that follows the first one step by step."""

from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dyhead_det.config.schema import EMAConfig
from dyhead_det.models.detectors import Detector

# Parameters or buffers, as `AveragedModel` hands them over.
Tensors = tuple[Tensor, ...] | list[Tensor]


def build_ema(config: EMAConfig, detector: Detector) -> AveragedModel:
    """Return a copy of a detector that `update_parameters` moves towards it, buffers too.

    The copy lies on the detector's device and is left out of what is compiled or distributed.
    """

    def average(averages: Tensors, current: Tensors, _num_averaged: Tensor | int) -> None:
        # Not the given number, which lies on the GPU: reading it would wait for the whole step.
        decay = ema_decay(config, int(ema.n_averaged))
        update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # PyTorch's
        update(averages, current, _num_averaged)

    ema = AveragedModel(detector, multi_avg_fn=average, use_buffers=True)
    return ema


def ema_decay(config: EMAConfig, num_averaged: int) -> float:
    """Return how much of the average is kept in an update.

    With `warmup` the average reaches back over a ninth of the steps so far, until that is as long
    as `decay` allows. (As in TensorFlow's ExponentialMovingAverage.)
    """
    if not config.warmup:
        return config.decay
    return min(config.decay, (1 + num_averaged) / (10 + num_averaged))
