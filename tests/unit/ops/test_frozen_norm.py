"""The frozen batch norm equals torchvision's, gradient too, and takes its weights."""

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops import FrozenBatchNorm2d

from dyhead_det.ops.frozen_norm import OnePassFrozenBatchNorm2d, OnePassFrozenBatchNormAct2d


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


def test_half_precision_maps_stay_so_and_are_rounded_once() -> None:
    norm = OnePassFrozenBatchNorm2d(6)
    for buffer in norm.buffers():
        buffer.uniform_(0.5, 2)
    x = torch.randn(2, 6, 5, 4).bfloat16()
    assert torch.equal(norm(x), norm(x.float()).bfloat16())


def test_with_an_activation_it_is_what_timm_makes_of_its_batch_norm() -> None:
    layers = pytest.importorskip("timm.layers")
    torch.manual_seed(0)
    norm = layers.BatchNormAct2d(6, eps=1e-3, act_layer=nn.ReLU6)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor.uniform_(0.5, 4)
    theirs = layers.freeze_batch_norm_2d(norm)
    ours = OnePassFrozenBatchNormAct2d(6, eps=norm.eps, drop=norm.drop, act=norm.act)
    ours.load_state_dict(norm.state_dict())
    assert set(ours.state_dict()) == set(theirs.state_dict())
    x = 4 * torch.randn(2, 6, 5, 4, requires_grad=True)
    results = []
    for frozen in (ours, theirs):
        out = frozen(x)
        results.append((out, *torch.autograd.grad(out.square().sum(), x)))
    torch.testing.assert_close(*results)
    out = ours(x)
    assert out.min() == 0
    assert out.max() == 6
    assert ours(x.bfloat16()).dtype == torch.bfloat16


def kept_for_backward(backbone: nn.Module, images: Tensor) -> tuple[int, dict[str, Tensor]]:
    """The bytes of maps that a forward pass keeps, each storage once, and the stages.

    Kernels have another length than the batch; the indices of a max pooling are no maps.
    """
    kept: dict[int, tuple[Tensor, int]] = {}

    def keep(saved: Tensor) -> Tensor:
        if saved.ndim == 4 and len(saved) == len(images) and saved.is_floating_point():
            storage = saved.untyped_storage()
            kept[id(storage)] = saved, storage.nbytes()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        stages = backbone(images)
    return sum(nbytes for _, nbytes in kept.values()), stages


def test_a_frozen_resnet_keeps_half_the_bytes_under_bfloat16_autocast() -> None:
    torch.manual_seed(0)
    resnet = resnet50(weights=None, norm_layer=OnePassFrozenBatchNorm2d)
    names = {f"layer{stage}": f"c{stage + 1}" for stage in range(1, 5)}
    backbone = IntermediateLayerGetter(resnet, names)
    images = torch.rand(3, 3, 32, 32)
    in_float32, _ = kept_for_backward(backbone, images)
    with torch.autocast("cpu", torch.bfloat16):
        in_bfloat16, stages = kept_for_backward(backbone, images)
    assert {name: x.dtype for name, x in stages.items()} == dict.fromkeys(
        ("c2", "c3", "c4", "c5"), torch.bfloat16
    )
    assert in_bfloat16 <= in_float32 / 2
