"""The frozen batch norm equals torchvision's, gradient too, and takes its weights."""

import torch
from torchvision.ops import FrozenBatchNorm2d

from dyhead_det.ops.frozen_norm import OnePassFrozenBatchNorm2d


def test_values_and_gradient_are_torchvisions() -> None:
    theirs = FrozenBatchNorm2d(6, eps=1e-3)
    for buffer in theirs.buffers():
        buffer.uniform_(0.5, 2)
    ours = OnePassFrozenBatchNorm2d(6, eps=1e-3)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 6, 5, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    results = []
    for norm in (ours, theirs):
        out = norm(x)
        results.append((out, *torch.autograd.grad(out.square().sum(), x)))
    torch.testing.assert_close(*results)
    assert results[0][0].is_contiguous(memory_format=torch.channels_last)
