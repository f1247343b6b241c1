"""Synchronized batch norm: statistics over the images of all ranks, and over nothing but images."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dyhead_det.distributed.collectives import all_reduce_sum
from dyhead_det.distributed.world import get_world_size
from dyhead_det.ops.gather.context import Context


class SyncBatchNorm2d(nn.BatchNorm2d):
    """A batch norm over all ranks; PyTorch's, `SyncBatchNorm`, knows CUDA only.

    Attributes:
        is_counted: False while a rank that has no image calls the model with a stand-in, which
            takes part in the collectives and counts for nothing.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        """Take the place of a batch norm, with its names in the state dict.

        Args:
            norm: What timm's do besides, an activation, follows here too.
        """
        super().__init__(norm.num_features, eps=norm.eps, momentum=norm.momentum)
        self.is_counted = True
        for name, module in norm.named_children():
            self.add_module(name, module)
        self.load_state_dict(norm.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        """Normalize maps (B, C, H, W); in training by mean and variance over all ranks."""
        if self.training and get_world_size() > 1:
            normalized = self._normalize_together(x)
        else:
            normalized = super().forward(x)
        for module in self.children():
            normalized = module(normalized)
        return normalized

    def _normalize_together(self, x: Tensor) -> Tensor:
        values = x.detach().float()
        weight = float(self.is_counted)
        count = all_reduce_sum(values.new_tensor(weight * x.numel() / self.num_features))
        divisor = count.clamp(min=1)
        mean = all_reduce_sum(weight * values.sum(dim=(0, 2, 3))) / divisor  # (C,)
        squares = weight * (values - _wide(mean)).square().sum(dim=(0, 2, 3))
        variance = all_reduce_sum(squares) / divisor
        with torch.no_grad():
            # Of a micro-batch without an image on any rank there is nothing to learn.
            has_images = count > 0
            mean = torch.where(has_images, mean, self.running_mean)
            variance = torch.where(has_images, variance, self.running_var)
            self.num_batches_tracked.add_(has_images)
            share = self.momentum or 1 / float(self.num_batches_tracked.clamp(min=1))
            unbiased = variance * divisor / (divisor - 1).clamp(min=1)
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(torch.where(has_images, unbiased, self.running_var), share)
        inverse_deviation = (variance + self.eps).rsqrt()
        whitened: Tensor = _Whiten.apply(x, mean, inverse_deviation, weight / divisor)
        return (whitened * _wide(self.weight) + _wide(self.bias)).to(x.dtype)


class _Whiten(torch.autograd.Function):
    """Subtract the mean and divide by the deviation, both of which depend on all ranks.

    With y = (x - mean) / deviation of n numbers, a gradient g of y becomes
    (g - sum(g) / n - y sum(g y) / n) / deviation, the sums taken over all ranks. What does not
    count in mean and deviation has only the first of the three terms.
    """

    @staticmethod
    def forward(
        ctx: Context, x: Tensor, mean: Tensor, inverse_deviation: Tensor, share: Tensor
    ) -> Tensor:
        """Whiten maps.

        Args:
            ctx: Of autograd.
            x: (B, C, H, W).
            mean: (C,), over all ranks.
            inverse_deviation: (C,), likewise.
            share: Of one number of these maps in the statistics, 1 / n, or 0; a scalar.
        """
        ctx.save_for_backward(x, mean, inverse_deviation, share)
        return (x.float() - _wide(mean)) * _wide(inverse_deviation)

    @staticmethod
    def backward(ctx: Context, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        x, mean, inverse_deviation, share = ctx.saved_tensors
        y = (x.float() - _wide(mean)) * _wide(inverse_deviation)
        sums = torch.stack([gradient.sum(dim=(0, 2, 3)), (gradient * y).sum(dim=(0, 2, 3))])
        of_gradient, of_product = all_reduce_sum(sums) * share
        centered = gradient - _wide(of_gradient) - y * _wide(of_product)
        return (centered * _wide(inverse_deviation)).to(x.dtype), None, None, None


@contextmanager
def excluded_from_statistics(model: nn.Module) -> Iterator[None]:
    """Let the maps of a block count in no statistics of a batch norm: they are of no image.

    Synchronized norms take part in their collectives all the same; others work as in evaluation.
    """
    norms = [x for x in model.modules() if isinstance(x, nn.BatchNorm2d) and x.training]
    for norm in norms:
        if isinstance(norm, SyncBatchNorm2d):
            norm.is_counted = False
        else:
            norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()
            if isinstance(norm, SyncBatchNorm2d):
                norm.is_counted = True


def convert_sync_batchnorm(model: nn.Module) -> None:
    """Put a synchronized batch norm in the place of every batch norm, in place."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, SyncBatchNorm2d(module))


def _wide(channels: Tensor) -> Tensor:
    """Let (C,) meet maps (B, C, H, W)."""
    return channels[:, None, None]
