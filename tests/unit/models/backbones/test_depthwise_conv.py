"""Depthwise convolutions train in float32 under a CPU's autocast, and nowhere else."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from dyhead_det.models.backbones.depthwise_conv import train_depthwise_in_float32

BFLOAT16 = torch.bfloat16


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 4, 3, groups=2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_under_autocast_are_those_without(dtype: torch.dtype) -> None:
    depthwise = network()[0].to(dtype)
    images = torch.randn(2, 6, 5, 5, dtype=dtype, requires_grad=True)
    wanted = depthwise(images)
    wanted_gradients = torch.autograd.grad(wanted.square().sum(), (images, *depthwise.parameters()))
    train_depthwise_in_float32(depthwise)
    with torch.autocast("cpu", BFLOAT16):
        got = depthwise(images)
    assert torch.equal(got, wanted)
    got_gradients = torch.autograd.grad(got.square().sum(), (images, *depthwise.parameters()))
    for gradient, wanted_gradient in zip(got_gradients, wanted_gradients, strict=True):
        assert torch.equal(gradient, wanted_gradient)


@pytest.mark.parametrize("has_autocast", [False, True])
def test_inference_other_convolutions_and_plain_float32_compute_what_they_did(
    has_autocast: bool,
) -> None:
    plain, ours = network(), network()
    train_depthwise_in_float32(ours)
    images = torch.randn(2, 6, 9, 9)

    def run(each: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast("cpu", BFLOAT16, enabled=has_autocast):
            return each(x)

    with torch.no_grad():
        got, wanted = run(ours, images), run(plain, images)
    assert got.dtype == (BFLOAT16 if has_autocast else torch.float32)
    assert torch.equal(got, wanted)
    assert torch.equal(run(ours[1], images), run(plain[1], images))
    if not has_autocast:
        assert torch.equal(ours(images), plain(images))


def test_a_copy_has_its_own_weights_and_the_same_names() -> None:
    original = network()
    names = list(original.state_dict())
    train_depthwise_in_float32(original)
    copy = deepcopy(original)
    assert list(copy.state_dict()) == names
    images = torch.randn(1, 6, 5, 5)
    with torch.no_grad():
        copy[0].weight.zero_()
        copy[0].bias.fill_(3)
    with torch.autocast("cpu", BFLOAT16):
        assert copy[0](images).unique().tolist() == [3]
        assert original[0](images).unique().numel() > 1
