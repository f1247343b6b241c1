"""One step of the optimizer in six phases; a function of weights, images, seed and step."""

import math
import random
from contextlib import nullcontext
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from dyhead_det.contracts import Target
from dyhead_det.distributed.collectives import all_reduce_sum
from dyhead_det.distributed.ddp import no_sync, wrap_ddp
from dyhead_det.distributed.device import images_to_device
from dyhead_det.distributed.slow_step import slow_step_explained
from dyhead_det.distributed.world import get_rank, get_world_size
from dyhead_det.errors import NonFiniteLossError
from dyhead_det.models.backbones.sync_norm import excluded_from_statistics
from dyhead_det.models.image_seeds import mix_seeds
from dyhead_det.models.runtime import autocast
from dyhead_det.training.micro_batches import (
    STAND_IN,
    MicroBatch,
    micro_batch_weights,
    split_batch,
    targets_to_device,
    weigh_losses,
)
from dyhead_det.training.run import Run

# With a factor as low as this it is not by the factor that fp16 gradients overflow.
LEAST_SCALE = 1e-4


def train_step(run: Run, images: list[Tensor], targets: list[Target]) -> tuple[float, float]:
    """Do one step of the optimizer and return its learning rate and loss.

    With `train.accumulate` the batch is taken in micro-batches, whose gradients add up to those of
    the whole. Randomness follows from the seed and the step alone.

    Raises:
        NonFiniteLossError: If a loss or the gradient is NaN or infinite; no weight has changed.
    """
    run.position.begin(run.progress.step + 1)
    with slow_step_explained(run.position, partial(_count_gradients, run.parts.detector)):
        return _train_step(run, images, targets)


def _train_step(run: Run, images: list[Tensor], targets: list[Target]) -> tuple[float, float]:
    parts = run.parts
    seed = mix_seeds(parts.config.seed, run.progress.step)
    lr = _prepare(run)
    micro_batches = split_batch(images, targets, parts.config.train.accumulate)
    weights = micro_batch_weights(parts.detector, micro_batches, parts.device, seed=seed)
    sums = _accumulate_gradients(run, micro_batches, weights, seed)
    run.position.enter("the sum of the losses of all ranks")
    values = _clip_and_check(run, sums, targets)
    run.position.enter("the optimizer")
    with nullcontext() if parts.part_log is None else parts.part_log.around_step(values):
        _update_weights(run, is_skipped=bool(values.get("skipped")))
    run.progress.losses.add(values)
    return lr, sum(value for name, value in values.items() if name.startswith("loss"))


def _count_gradients(model: nn.Module) -> int:
    return sum(parameter.grad is not None for parameter in model.parameters())


def _prepare(run: Run) -> float:
    """Set learning rate, what trains and empty gradients; return the learning rate."""
    parts, step = run.parts, run.progress.step
    lr = parts.learning_rate.set(step)
    if parts.backbone_freezer.set(step):
        run.ddp_model = parts.detector  # the old wrapper goes before the new one comes
        run.ddp_model = wrap_ddp(parts.detector)
    parts.optimizer.zero_grad(set_to_none=True)
    return lr


def _accumulate_gradients(
    run: Run, micro_batches: list[MicroBatch], weights: list[dict[str, Tensor]], seed: int
) -> dict[str, Tensor]:
    """Run forward and backward for each micro-batch; return the sums of the weighted losses.

    Ranks average their gradients in the last backward only.
    """
    sums: dict[str, Tensor] = {}
    first_number = get_rank() * run.parts.config.train.accumulate
    for index, (micro_batch, its_weights) in enumerate(zip(micro_batches, weights, strict=True)):
        # Layers that drop at random draw from the global generators, anew in every micro-batch.
        _seed_everything(mix_seeds(seed, first_number + index))
        is_last = index == len(micro_batches) - 1
        run.position.enter("the forward pass")
        with nullcontext() if is_last else no_sync(run.ddp_model):
            losses = weigh_losses(_losses_of(run, micro_batch, seed=seed), its_weights)
            total: Tensor = run.parts.scaler.scale(torch.stack(list(losses.values())).sum())
            run.position.enter("the backward pass")
            total.backward()  # type: ignore[no-untyped-call]  # PyTorch's, not annotated
        for name, loss in losses.items():
            sums[name] = sums.get(name, 0) + loss.detach()
    return sums


def _losses_of(run: Run, micro_batch: MicroBatch, *, seed: int) -> dict[str, Tensor]:
    """Return the losses of a micro-batch, or of a stand-in where this rank has no image."""
    if micro_batch.images:
        return _forward(run, *micro_batch, seed=seed)
    with excluded_from_statistics(run.parts.detector):
        return _forward(run, *STAND_IN, seed=seed)


def _forward(
    run: Run, images: list[Tensor], targets: list[Target], *, seed: int
) -> dict[str, Tensor]:
    """Return the losses of images by the detector's names."""
    device = run.parts.device
    with autocast(run.parts.config.train.amp, device):
        losses: dict[str, Tensor] = run.ddp_model(
            images_to_device(images, device), targets_to_device(targets, device), seed=seed
        )
    return losses


def _clip_and_check(run: Run, sums: dict[str, Tensor], targets: list[Target]) -> dict[str, float]:
    """Shorten the gradient to `optim.clip_norm`; return losses and its norm as numbers.

    Under fp16 gradients overflow now and then: the gradient scaler leaves out such a step and
    lowers its factor. That is noted as 1 under ``skipped``, and the norm as 0.

    Raises:
        NonFiniteLossError: If a loss or the gradient is NaN or infinite.
    """
    scaler = run.parts.scaler
    scaler.unscale_(run.parts.optimizer)
    of_rank = torch.stack([*sums.values(), _clip(run)])
    means = all_reduce_sum(of_rank) / get_world_size()
    values = dict(zip((*sums, "grad_norm"), means.tolist(), strict=True))
    if scaler.is_enabled():
        is_skipped = not math.isfinite(values["grad_norm"])
        values["skipped"] = float(is_skipped)
        if is_skipped and scaler.get_scale() > LEAST_SCALE:
            values["grad_norm"] = 0.0
    wrong = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    if wrong:
        image_ids = "of another process"
        if not of_rank.isfinite().all():
            image_ids = ", ".join(str(target["image_id"]) for target in targets)
        msg = (
            f"step {run.progress.step + 1}: {', '.join(wrong)}, on images {image_ids}; "
            f"{run.saved_summary()}; lower optim.lr, lengthen schedule.warmup_steps, set "
            "optim.clip_norm or train.amp=off"
        )
        raise NonFiniteLossError(msg)
    return values


def _clip(run: Run) -> Tensor:
    """Return the norm of all gradients together, and shorten them to `optim.clip_norm`."""
    parameters = [x for x in run.parts.detector.parameters() if x.grad is not None]
    norm: Tensor = get_total_norm([x.grad for x in parameters if x.grad is not None])
    clip_norm = run.parts.config.optim.clip_norm
    if clip_norm is not None:
        clip_grads_with_norm_(parameters, clip_norm, norm)
    return norm


def _update_weights(run: Run, *, is_skipped: bool) -> None:
    """Let the optimizer take its step, and the moving average follow."""
    parts = run.parts
    parts.scaler.step(parts.optimizer)
    parts.scaler.update()
    if parts.ema is not None and not is_skipped:
        parts.ema.update_parameters(parts.detector)


def _seed_everything(seed: int) -> None:
    """Seed PyTorch on all devices, NumPy and Python; so a checkpoint needs no random state."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
