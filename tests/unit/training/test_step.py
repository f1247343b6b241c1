"""One step of the optimizer where the numbers go wrong: what is refused, skipped and kept."""

import math

import pytest
import torch

from dyhead_det.errors import NonFiniteLossError
from dyhead_det.training import step as step_module
from dyhead_det.training.run import build_run
from dyhead_det.training.step import train_step

from conftest import make_config


@pytest.fixture
def batch():
    images = [torch.randint(256, (3, 64, 64), dtype=torch.uint8) for _ in range(2)]
    boxes = torch.tensor([[4.0, 4, 40, 44]])
    targets = [{"boxes": boxes, "labels": torch.tensor([n]), "image_id": 10 + n} for n in range(2)]
    return images, targets


def new_run(root, **train):
    run = build_run(make_config(root, train=train), root, torch.device("cpu"), is_new=True)
    run.parts.detector.train()
    return run


def weights(run):
    return {name: value.clone() for name, value in run.parts.detector.named_parameters()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def multiply_gradients(monkeypatch):
    """Let the losses stay as they are and their gradients be multiplied."""

    def arrange(factor):
        real = step_module._forward

        def forward(*arguments, **keywords):
            losses = real(*arguments, **keywords)
            for loss in losses.values():
                loss.register_hook(lambda gradient: gradient * factor)
            return losses

        monkeypatch.setattr(step_module, "_forward", forward)

    return arrange


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(
    tiny_dataset, batch, multiply_gradients
):
    # So did a convolution of PyTorch on the CPU in bfloat16, on maps of one pixel.
    run = new_run(tiny_dataset)
    before = weights(run)
    multiply_gradients(math.inf)
    with pytest.raises(NonFiniteLossError, match=r"step 1: grad_norm is (nan|inf), on images 10"):
        train_step(run, *batch)
    assert same(before, weights(run))
    assert not run.parts.optimizer.state


def test_an_overflow_of_fp16_gradients_is_skipped_and_the_next_step_counts(
    tiny_dataset, batch, multiply_gradients, monkeypatch
):
    run = new_run(tiny_dataset, amp="fp16")
    before, scale = weights(run), run.parts.scaler.get_scale()
    multiply_gradients(1e38)  # finite in float32, infinite times the scaler's factor
    train_step(run, *batch)
    assert same(before, weights(run))
    assert run.parts.scaler.get_scale() == scale / 2
    assert run.progress.losses.sums["skipped"] == 1
    monkeypatch.undo()
    train_step(run, *batch)
    assert not same(before, weights(run))
    assert run.progress.losses.sums["skipped"] == 1
    assert run.progress.losses.sums["grad_norm"] > 0


def test_fp16_gradients_that_overflow_by_any_factor_end_the_run(
    tiny_dataset, batch, multiply_gradients
):
    run = new_run(tiny_dataset, amp="fp16")
    multiply_gradients(math.inf)
    while run.parts.scaler.get_scale() > step_module.LEAST_SCALE:
        train_step(run, *batch)
    with pytest.raises(NonFiniteLossError, match="grad_norm is"):
        train_step(run, *batch)


def test_a_frozen_backbone_stays_bit_for_bit_and_then_trains(tiny_dataset, batch):
    run = new_run(tiny_dataset, freeze={"backbone_steps": 1})
    num_groups, before = len(run.parts.optimizer.param_groups), weights(run)
    is_backbone = "network.backbone.body."
    train_step(run, *batch)
    after = weights(run)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not any(name.startswith(is_backbone) for name in changed)
    run.progress.step = 1
    train_step(run, *batch)
    assert any(not torch.equal(x, after[n]) for n, x in weights(run).items() if is_backbone in n)
    assert len(run.parts.optimizer.param_groups) == num_groups
