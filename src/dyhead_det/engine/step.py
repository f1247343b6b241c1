"""One step of the optimizer: forward, backward, clip, update; a function of seed and step."""

import math

import torch
from torch import Tensor

from dyhead_det.contracts import Target
from dyhead_det.engine.device import images_to_device
from dyhead_det.engine.run import Run
from dyhead_det.errors import NonFiniteLossError

AMP_TYPES = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def train_step(run: Run, images: list[Tensor], targets: list[Target]) -> tuple[float, float]:
    """Do one step of the optimizer and return its learning rate and loss.

    Its randomness follows from the seed and the step alone.
    """
    torch.manual_seed(_step_seed(run.config.seed, run.step))
    lr = run.learning_rate.set(run.step)
    losses = _forward(run, images, targets)
    values = _finite_values(run, losses, targets)
    run.optimizer.zero_grad(set_to_none=True)
    total: Tensor = run.scaler.scale(torch.stack(list(losses.values())).sum())
    total.backward()  # type: ignore[no-untyped-call]  # PyTorch's, not annotated
    if run.config.optim.clip_norm is not None:
        run.scaler.unscale_(run.optimizer)
        torch.nn.utils.clip_grad_norm_(run.detector.parameters(), run.config.optim.clip_norm)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    for name, value in values.items():
        run.loss_sums[name] = run.loss_sums.get(name, 0.0) + value
    run.num_summed += 1
    return lr, sum(values.values())


def _forward(run: Run, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
    """Return the losses of a batch by name, all of them starting with ``loss``."""
    device, amp_type = run.device, AMP_TYPES[run.config.train.amp]
    on_device = [
        Target(
            boxes=target["boxes"].to(device, non_blocking=True),
            labels=target["labels"].to(device, non_blocking=True),
        )
        for target in targets
    ]
    with torch.autocast(device.type, dtype=amp_type, enabled=amp_type is not None):
        losses = run.detector(images_to_device(images, device), on_device)
    return {
        name if name.startswith("loss") else f"loss_{name}": loss for name, loss in losses.items()
    }


def _finite_values(run: Run, losses: dict[str, Tensor], targets: list[Target]) -> dict[str, float]:
    """Return the losses as numbers.

    Raises:
        NonFiniteLossError: If one is none.
    """
    values = dict(zip(losses, torch.stack(list(losses.values())).tolist(), strict=True))
    wrong = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    if wrong:
        image_ids = ", ".join(str(target["image_id"]) for target in targets)
        kept = (
            f"the last checkpoint is {run.last_path}"
            if run.last_path.exists()
            else "no checkpoint yet"
        )
        msg = (
            f"step {run.step + 1}: {', '.join(wrong)}, on images {image_ids}; {kept}; lower "
            "optim.lr, lengthen schedule.warmup_steps, set optim.clip_norm or train.amp=off"
        )
        raise NonFiniteLossError(msg)
    return values


def _step_seed(seed: int, step: int) -> int:
    """Mix the seed of a run and a step to a seed of the step (SplitMix64's increments)."""
    return (seed * 0x9E3779B97F4A7C15 + (step + 1) * 0xBF58476D1CE4E5B9) % 2**63
