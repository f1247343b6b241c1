"""No block makes the host wait for a GPU: not forward, not backward, once the layout is there."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor

from device_waits import device_waits
from dyhead_det.dyhead import fused_passes
from dyhead_det.dyhead.head import DyHead
from dyhead_det.dyhead.stacked import StackedDyHead
from dyhead_det.ops.deform_conv import modulated_deform_conv2d
from dyhead_det.ops.gather import deform_conv as gather


@pytest.fixture(autouse=True)
def _meta_is_a_device_in_many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    # Autocast refuses to be switched off where there is none.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    monkeypatch.setattr(gather, "GPU_CHUNK_NUMBERS", 32 * 30)
    monkeypatch.setattr(fused_passes, "GPU_CHUNK_NUMBERS", 32 * 30)


def pyramid() -> list[Tensor]:
    sizes = [(8, 6), (4, 3)]
    return [torch.empty(2, 32, *size, device="meta", requires_grad=True) for size in sizes]


def waits_of_a_step(dyhead: torch.nn.Module, levels: list[Tensor]) -> dict[str, int]:
    with device_waits() as waits:
        sum(x.sum() for x in dyhead(levels)).backward()
    return dict(waits)


@pytest.mark.parametrize("rule", ["resized", "flattened"])
def test_a_step_of_the_fast_blocks_waits_for_nothing_but_its_first_layout(rule: str) -> None:
    dyhead = DyHead(32, 2, coarse_offsets=rule, deform_backend="gather").to("meta")
    levels = pyramid()
    assert waits_of_a_step(dyhead, levels)  # the layout has constants of the host
    assert waits_of_a_step(dyhead, levels) == {}


def test_a_step_of_the_stacked_blocks_waits_for_nothing() -> None:
    dyhead = StackedDyHead(32, 2, deform_backend="gather").to("meta")
    assert waits_of_a_step(dyhead, pyramid()) == {}


def test_a_gathered_convolution_waits_for_nothing() -> None:
    x = torch.empty(2, 32, 9, 7, device="meta", requires_grad=True)
    offset, mask = x.new_empty(2, 18, 5, 4), x.new_empty(2, 9, 5, 4)
    with device_waits() as waits:
        out = modulated_deform_conv2d(
            x, offset, mask, x.new_empty(32, 32, 3, 3), x.new_empty(32), stride=2, backend="gather"
        )
        out.sum().backward()
    assert waits == {}


def test_the_counter_sees_questions_masks_and_constants() -> None:
    x = torch.arange(4.0)
    with device_waits() as waits:
        x.sum().item()
        x[x > 1]
        x[torch.tensor([0, 1])]
        x[[0, 1]]
        x.new_tensor([1.0, 2.0])
        torch.from_numpy(np.zeros(2))
        x.unique_consecutive()
        x[1:].add_(1)
        torch.empty(2).to("meta")
    assert waits == {
        "aten::_local_scalar_dense": 1,
        "aten::index": 1,
        "constant of the host": 4,
        "aten::unique_consecutive": 1,
        "copy between host and device": 1,
    }


class ConstantInBackward(torch.autograd.Function):
    """Makes a constant of the host where only a backward pass comes by."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient * gradient.new_tensor([2.0])[[0]]


def test_the_counter_sees_backward_passes() -> None:
    x = torch.ones(3, device="meta", requires_grad=True)
    with device_waits() as waits:
        ConstantInBackward.apply(x).sum().backward()
    assert waits == {"constant of the host": 2}


def test_the_counter_leaves_tensors_as_they_were() -> None:
    # A method set on Tensor and taken off again makes PyTorch take 0-d tensors for sequences.
    with device_waits():
        pass
    x = torch.arange(2.0)
    assert torch.tensor([[x.min(), x.max()]]).tolist() == [[0.0, 1.0]]
