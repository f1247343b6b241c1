"""Parameter groups and the learning rate over a run, against values worked out by hand."""

import pytest
import torch
from torch import nn

from dyhead_det.config.schema import (
    AutoScaleLRConfig,
    DyHeadConfig,
    OptimConfig,
    ScheduleConfig,
)
from dyhead_det.models.backbones.pyramid import build_dyhead
from dyhead_det.training.optim import (
    LearningRate,
    build_optimizer,
    learning_rate_factor,
    scaled_lr,
)


def model():
    backbone = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    return nn.ModuleDict({"backbone": backbone, "head": nn.Linear(2, 2)})


def groups_of(**settings):
    network = model()
    config = OptimConfig(**settings)
    optimizer = build_optimizer(config, network, backbone=network["backbone"], lr=config.lr)
    return optimizer, [
        (sorted(tuple(p.shape) for p in group["params"]), group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
    ]


def test_norms_and_biases_decay_unless_told_otherwise():
    _, groups = groups_of(lr=0.1, weight_decay=0.01)
    assert [(lr, decay) for _, lr, decay in groups] == [(0.1, 0.01), (0.1, 0.01)]


def test_the_body_has_its_own_rate_and_norms_and_biases_need_not_decay():
    _, groups = groups_of(
        lr=0.1, weight_decay=0.01, backbone_lr_factor=0.1, decay_norms_and_biases=False
    )
    assert sorted(groups, key=lambda group: group[1:]) == [
        ([(2,), (2,), (2,)], pytest.approx(0.01), 0.0),
        ([(2, 1, 3, 3)], pytest.approx(0.01), 0.01),
        ([(2,)], 0.1, 0.0),
        ([(2, 2)], 0.1, 0.01),
    ]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("scheme", ["levels", "stacked"])
def test_offsets_and_masks_have_a_rate_of_their_own_and_with_the_scale_need_not_decay(scheme, name):
    network = nn.ModuleDict(
        {
            "backbone": nn.Conv2d(3, 16, 3),
            "dyhead": build_dyhead(DyHeadConfig(scheme=scheme, num_blocks=2), channels=16),
        }
    )
    config = OptimConfig(
        name=name,
        weight_decay=0.01,
        backbone_lr_factor=0.1,
        offset_lr_factor=0.02,
        decay_offsets_and_scale=False,
    )
    optimizer = build_optimizer(config, network, backbone=network["backbone"], lr=1.0)
    group_of = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    got = {name: group_of[id(parameter)] for name, parameter in network.named_parameters()}
    offsets = [name for name in got if "offset_and_mask" in name]
    assert len(offsets) == 4  # weight and bias of two blocks
    for name in offsets:
        assert got.pop(name) == (0.02, 0.0)
    assert got.pop("dyhead.residual_scale") == (1.0, 0.0)
    assert {got.pop("backbone.weight"), got.pop("backbone.bias")} == {(0.1, 0.01)}
    assert set(got.values()) == {(1.0, 0.01)}


def test_an_offset_rate_of_one_makes_no_group_of_its_own():
    """So that optimizers of runs from before there was one can be restored."""
    dyhead = build_dyhead(DyHeadConfig(num_blocks=1), channels=16)
    optimizer = build_optimizer(OptimConfig(), dyhead, backbone=nn.Identity(), lr=0.1)
    assert len(optimizer.param_groups) == 1


def test_frozen_parameters_are_left_out():
    network = model()
    network["backbone"].requires_grad_(False)
    optimizer = build_optimizer(OptimConfig(), network, backbone=network["backbone"], lr=0.1)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_the_optimizer_is_the_one_named(name, kind):
    optimizer, _ = groups_of(name=name)
    assert isinstance(optimizer, kind)


def test_the_rate_is_in_proportion_to_the_batch_only_when_asked(caplog):
    caplog.set_level("INFO")
    assert scaled_lr(OptimConfig(lr=0.02), batch_size=2) == 0.02
    assert not caplog.messages
    asked = OptimConfig(lr=0.02, auto_scale_lr=AutoScaleLRConfig(base_batch_size=16))
    assert scaled_lr(asked, batch_size=2) == pytest.approx(0.0025)
    assert "lr 0.02 for 16 images a step becomes 0.0025 for 2" in caplog.text


def test_the_published_schedule():
    """1000 steps of linear warm-up from a thousandth, then a tenth at 60000 and at 80000."""
    config = ScheduleConfig(warmup_steps=1000, warmup_factor=0.001, milestones=(0.66667, 0.88889))
    factors = {
        0: 0.001,
        500: 0.5005,
        1000: 1,
        59999: 1,
        60000: 0.1,
        79999: 0.1,
        80000: 0.01,
        89999: 0.01,
    }
    for step, factor in factors.items():
        assert learning_rate_factor(config, step, num_steps=90000) == pytest.approx(factor)


def test_the_cosine_falls_from_one_to_its_last_value():
    config = ScheduleConfig(name="cosine", warmup_steps=0, final_lr_factor=0.1)
    factors = [learning_rate_factor(config, step, num_steps=100) for step in (0, 50, 100)]
    assert factors == pytest.approx([1, 0.55, 0.1])


def test_warm_up_counts_steps_so_that_epochs_of_one_batch_leave_it():
    config = ScheduleConfig(name="cosine", warmup_steps=4, warmup_factor=0.0)
    factors = [learning_rate_factor(config, step, num_steps=10**9) for step in range(6)]
    assert factors == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1])


def test_setting_a_rate_keeps_the_ratio_of_the_groups():
    optimizer, _ = groups_of(lr=0.1, backbone_lr_factor=0.5)
    rate = LearningRate(ScheduleConfig(warmup_steps=10, warmup_factor=0.0), optimizer, num_steps=99)
    assert rate.set(5) == pytest.approx(0.05)
    assert sorted(group["lr"] for group in optimizer.param_groups) == pytest.approx([0.025, 0.05])
