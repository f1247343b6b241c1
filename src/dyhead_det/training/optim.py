"""Optimizer with parameter groups, and the learning rate as a function of the step."""

import logging
import math
from typing import Any

import torch
from torch import nn

from dyhead_det.config.schema import OptimConfig, ScheduleConfig

logger = logging.getLogger(__name__)


def scaled_lr(config: OptimConfig, *, batch_size: int) -> float:
    """Return the learning rate for a batch size: in proportion to it under `auto_scale_lr`.

    Args:
        config: The optimizer's section.
        batch_size: Images per step, of all parts and processes together.
    """
    if config.auto_scale_lr is None:
        return config.lr
    base = config.auto_scale_lr.base_batch_size
    lr = config.lr * batch_size / base
    logger.info(
        "optim.auto_scale_lr: lr %g for %d images a step becomes %g for %d",
        config.lr,
        base,
        lr,
        batch_size,
    )
    return lr


def build_optimizer(
    config: OptimConfig, model: nn.Module, *, backbone: nn.Module, lr: float
) -> torch.optim.Optimizer:
    """Build SGD or AdamW over every parameter that trains.

    The backbone takes `lr * backbone_lr_factor`, DyHead's offset and mask convolutions
    `lr * offset_lr_factor`. Norms and biases (parameters of one dimension) take no weight decay
    unless `decay_norms_and_biases`; offsets, masks and the residual's scale none unless
    `decay_offsets_and_scale`. What differs in one of these is a group of its own.
    """
    backbone_ids = {id(parameter) for parameter in backbone.parameters()}
    groups: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_backbone = id(parameter) in backbone_ids
            is_offset = is_offset_parameter(name)
            lr_factor = config.offset_lr_factor if is_offset else 1.0
            if is_backbone:
                lr_factor = config.backbone_lr_factor
            is_decayed = config.decay_norms_and_biases or parameter.ndim > 1
            if is_offset or is_residual_scale(name):
                is_decayed = is_decayed and config.decay_offsets_and_scale
            groups.setdefault((is_backbone, lr_factor, is_decayed), []).append(parameter)
    settings: list[dict[str, Any]] = [
        {
            "params": parameters,
            "lr": lr * lr_factor,
            "weight_decay": config.weight_decay if is_decayed else 0.0,
        }
        for (_, lr_factor, is_decayed), parameters in groups.items()
    ]
    if config.name == "sgd":
        return torch.optim.SGD(settings, momentum=config.momentum)
    return torch.optim.AdamW(settings)


def is_offset_parameter(name: str) -> bool:
    """Return whether a parameter of this name belongs to a convolution for offsets and masks."""
    return "offset_and_mask" in name.split(".")


def is_residual_scale(name: str) -> bool:
    """Return whether a parameter of this name is the scale of the residual around DyHead."""
    return name.rpartition(".")[2] == "residual_scale"


def learning_rate_factor(config: ScheduleConfig, step: int, *, num_steps: int) -> float:
    """Return what the base learning rate is multiplied by in a step.

    Linear warm-up counted in steps, whatever the length of an epoch, times steps down at
    fractions of the run or a cosine down to `final_lr_factor`.

    Args:
        config: The schedule.
        step: 0 for the first step of the run.
        num_steps: Length of the run.
    """
    warmup = 1.0
    if step < config.warmup_steps:
        done = step / config.warmup_steps
        warmup = config.warmup_factor + (1 - config.warmup_factor) * done
    if config.name == "multi_step":
        passed = sum(step >= round(fraction * num_steps) for fraction in config.milestones)
        return warmup * config.gamma**passed
    cosine = (1 + math.cos(math.pi * step / num_steps)) / 2
    return warmup * (config.final_lr_factor + (1 - config.final_lr_factor) * cosine)


class LearningRate:
    """Sets the learning rate of every group before a step; it keeps no state of the run."""

    def __init__(
        self, config: ScheduleConfig, optimizer: torch.optim.Optimizer, *, num_steps: int
    ) -> None:
        self.config = config
        self.optimizer = optimizer
        self.num_steps = num_steps
        self.base = [group["lr"] for group in optimizer.param_groups]

    def set(self, step: int) -> float:
        """Set the learning rates of a step; return the highest."""
        factor = learning_rate_factor(self.config, step, num_steps=self.num_steps)
        for group, base in zip(self.optimizer.param_groups, self.base, strict=True):
            group["lr"] = base * factor
        return float(max(self.base) * factor)
