"""One step of the optimizer: forward, backward, clip, update; a function of seed and step."""

import math
import random
from contextlib import nullcontext
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from dyhead_det.contracts import Target
from dyhead_det.distributed.collectives import all_reduce_sum
from dyhead_det.distributed.ddp import no_sync, wrap_ddp
from dyhead_det.distributed.device import images_to_device
from dyhead_det.distributed.world import get_rank, get_world_size
from dyhead_det.errors import NonFiniteLossError
from dyhead_det.models.backbones.sync_norm import excluded_from_statistics
from dyhead_det.models.image_seeds import mix_seeds
from dyhead_det.models.loss_normalizers import PER_IMAGE, loss_normalizers, loss_weights
from dyhead_det.training.run import Run

# With a factor as low as this it is not by the factor that fp16 gradients overflow.
LEAST_SCALE = 1e-4

Part = tuple[list[Tensor], list[Target]]

# What a rank calls the model with when it has no image; losses and statistics of it do not count.
NOTHING: Part = (
    [torch.zeros(3, 64, 64, dtype=torch.uint8)],
    [Target(boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))],
)

AMP_TYPES = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def train_step(run: Run, images: list[Tensor], targets: list[Target]) -> tuple[float, float]:
    """Do one step of the optimizer and return its learning rate and loss.

    With `train.accumulate` the batch is taken in parts, whose gradients add up to those of the
    whole. Randomness follows from the seed and the step alone.
    """
    seed = mix_seeds(run.config.seed, run.step)
    lr = run.learning_rate.set(run.step)
    if run.frozen_backbone.set(run.step):
        run.ddp_model = run.detector
        run.ddp_model = wrap_ddp(run.detector)
    run.optimizer.zero_grad(set_to_none=True)
    parts = _split(images, targets, run.config.train.accumulate)
    sums: dict[str, Tensor] = {}
    first_number = get_rank() * run.config.train.accumulate
    for index, (part, shares) in enumerate(zip(parts, _shares(run, parts, seed), strict=True)):
        # Layers that drop at random draw from the global generators, anew in every part.
        _seed_everything(mix_seeds(seed, first_number + index))
        with nullcontext() if index == len(parts) - 1 else no_sync(run.ddp_model):
            losses = _weigh(_losses_of(run, part, seed=seed), shares)
            total: Tensor = run.scaler.scale(torch.stack(list(losses.values())).sum())
            total.backward()  # type: ignore[no-untyped-call]  # PyTorch's, not annotated
        for name, loss in losses.items():
            sums[name] = sums.get(name, 0) + loss.detach()
    run.scaler.unscale_(run.optimizer)
    sums["grad_norm"] = _clip(run)
    values = _finite_values(run, sums, targets)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    if run.ema is not None and not values.get("skipped"):
        run.ema.update_parameters(run.detector)
    for name, value in values.items():
        run.sums[name] = run.sums.get(name, 0.0) + value
    run.num_summed += 1
    return lr, sum(value for name, value in values.items() if name.startswith("loss"))


def _split(images: list[Tensor], targets: list[Target], num_parts: int) -> list[Part]:
    """Share out a batch as evenly as can be.

    Alone, no part is empty; several processes must take equally many, and one without an image
    takes part with nothing.
    """
    if get_world_size() == 1:
        num_parts = min(num_parts, len(images))
    bounds = [round(part * len(images) / num_parts) for part in range(num_parts + 1)]
    return [(images[start:end], targets[start:end]) for start, end in pairwise(bounds)]


def _shares(run: Run, parts: list[Part], seed: int) -> list[dict[str, Tensor]]:
    """Return by what the losses of each part are multiplied; empty where the part is the whole.

    The whole is the batch of all processes, whose gradients are averaged: a part counts as often
    as there are processes.
    """
    if len(parts) == get_world_size() == 1:
        return [{}]
    counts = [
        loss_normalizers(
            run.detector,
            [(image.shape[-2], image.shape[-1]) for image in images],
            _targets_to_device(targets, run.device),
            seed=seed,
        )
        for images, targets in parts
    ]
    own = torch.stack([torch.stack(list(part.values())) for part in counts]).sum(dim=0)
    whole = dict(zip(counts[0], all_reduce_sum(own), strict=True))
    return [
        {
            name: share * get_world_size() * bool(images)
            for name, share in loss_weights(count, whole).items()
        }
        for count, (images, _) in zip(counts, parts, strict=True)
    ]


def _weigh(losses: dict[str, Tensor], shares: dict[str, Tensor]) -> dict[str, Tensor]:
    """Multiply losses by their shares, and let their names start with ``loss``."""
    return {
        name if name.startswith("loss") else f"loss_{name}": (
            loss * shares.get(name, shares.get(PER_IMAGE, 1))
        )
        for name, loss in losses.items()
    }


def _losses_of(run: Run, part: Part, *, seed: int) -> dict[str, Tensor]:
    images, targets = part
    if images:
        return _forward(run, images, targets, seed=seed)
    with excluded_from_statistics(run.detector):
        return _forward(run, *NOTHING, seed=seed)


def _forward(
    run: Run, images: list[Tensor], targets: list[Target], *, seed: int
) -> dict[str, Tensor]:
    """Return the losses of a batch by the detector's names."""
    amp_type = AMP_TYPES[run.config.train.amp]
    with torch.autocast(run.device.type, dtype=amp_type, enabled=amp_type is not None):
        losses: dict[str, Tensor] = run.ddp_model(
            images_to_device(images, run.device),
            _targets_to_device(targets, run.device),
            seed=seed,
        )
    return losses


def _targets_to_device(targets: list[Target], device: torch.device) -> list[Target]:
    return [
        {
            **target,
            "boxes": target["boxes"].to(device, non_blocking=True),
            "labels": target["labels"].to(device, non_blocking=True),
        }
        for target in targets
    ]


def _clip(run: Run) -> Tensor:
    """Return the norm of all gradients together, and shorten them to `optim.clip_norm`."""
    parameters = [x for x in run.detector.parameters() if x.grad is not None]
    norm: Tensor = get_total_norm([x.grad for x in parameters if x.grad is not None])
    if run.config.optim.clip_norm is not None:
        clip_grads_with_norm_(parameters, run.config.optim.clip_norm, norm)
    return norm


def _finite_values(run: Run, sums: dict[str, Tensor], targets: list[Target]) -> dict[str, float]:
    """Return losses and gradient norm as numbers, before they reach the weights.

    Under fp16 gradients overflow now and then: the gradient scaler leaves out such a step and
    lowers its factor. That is noted as 1 under ``skipped``, and the norm as 0.

    Raises:
        NonFiniteLossError: If a loss or the gradient is NaN or infinite.
    """
    own = torch.stack(list(sums.values()))
    means = all_reduce_sum(own) / get_world_size()
    values = dict(zip(sums, means.tolist(), strict=True))
    if run.scaler.is_enabled():
        is_skipped = not math.isfinite(values["grad_norm"])
        values["skipped"] = float(is_skipped)
        if is_skipped and run.scaler.get_scale() > LEAST_SCALE:
            values["grad_norm"] = 0.0
    wrong = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    if wrong:
        image_ids = "of another process"
        if not own.isfinite().all():
            image_ids = ", ".join(str(target["image_id"]) for target in targets)
        msg = (
            f"step {run.step + 1}: {', '.join(wrong)}, on images {image_ids}; {run.kept()}; lower "
            "optim.lr, lengthen schedule.warmup_steps, set optim.clip_norm or train.amp=off"
        )
        raise NonFiniteLossError(msg)
    return values


def _seed_everything(seed: int) -> None:
    """Seed PyTorch on all devices, NumPy and Python; so a checkpoint needs no random state."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
