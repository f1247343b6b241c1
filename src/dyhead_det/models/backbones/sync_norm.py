"""Synchronized batch norm: statistics over the images of all ranks."""

import torch
from torch import Tensor, nn

from dyhead_det.distributed.collectives import all_reduce_sum
from dyhead_det.distributed.world import get_world_size
from dyhead_det.ops.gather.context import Context


class SyncBatchNorm2d(nn.BatchNorm2d):
    """A batch norm over all processes; PyTorch's, `SyncBatchNorm`, knows CUDA only.

    Args:
        norm: the batch norm to take the place of, with its names in the state dict; what timm's
            do besides, an activation, follows here too.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__(norm.num_features, eps=norm.eps, momentum=norm.momentum)
        for name, module in norm.named_children():
            self.add_module(name, module)
        self.load_state_dict(norm.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        """Normalize maps (B, C, H, W); in training by mean and variance over all processes."""
        if self.training and get_world_size() > 1:
            normalized = self._normalize_together(x)
        else:
            normalized = super().forward(x)
        for module in self.children():
            normalized = module(normalized)
        return normalized

    def _normalize_together(self, x: Tensor) -> Tensor:
        values = x.detach().float()
        count = all_reduce_sum(values.new_tensor(x.numel() / self.num_features))
        mean = all_reduce_sum(values.sum(dim=(0, 2, 3))) / count  # (C,)
        variance = all_reduce_sum((values - _wide(mean)).square().sum(dim=(0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            share = self.momentum or 1 / float(self.num_batches_tracked)
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(variance * count / (count - 1), share)
        whitened: Tensor = _Whiten.apply(x, mean, (variance + self.eps).rsqrt(), count)
        return (whitened * _wide(self.weight) + _wide(self.bias)).to(x.dtype)


class _Whiten(torch.autograd.Function):
    """Subtract the mean and divide by the deviation, both of which depend on all processes.

    With y = (x - mean) / deviation of n numbers, a gradient g of y becomes
    (g - sum(g) / n - y sum(g y) / n) / deviation, the sums taken over all processes.
    """

    @staticmethod
    def forward(
        ctx: Context, x: Tensor, mean: Tensor, inverse_deviation: Tensor, count: Tensor
    ) -> Tensor:
        ctx.save_for_backward(x, mean, inverse_deviation, count)
        return (x.float() - _wide(mean)) * _wide(inverse_deviation)

    @staticmethod
    def backward(ctx: Context, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        x, mean, inverse_deviation, count = ctx.saved_tensors
        y = (x.float() - _wide(mean)) * _wide(inverse_deviation)
        sums = torch.stack([gradient.sum(dim=(0, 2, 3)), (gradient * y).sum(dim=(0, 2, 3))])
        of_gradient, of_product = all_reduce_sum(sums) / count
        centered = gradient - _wide(of_gradient) - y * _wide(of_product)
        return (centered * _wide(inverse_deviation)).to(x.dtype), None, None, None


def _wide(channels: Tensor) -> Tensor:
    """Let (C,) meet maps (B, C, H, W)."""
    return channels[:, None, None]


def convert_sync_batchnorm(network: nn.Module) -> None:
    """Put a batch norm that is shared in the place of every one, in place."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, SyncBatchNorm2d(module))
