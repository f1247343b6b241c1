"""A backbone that is frozen for the first steps."""

import torch
from torch import nn

from dyhead_det.training.frozen_backbone import BackboneFreezer


def backbone():
    layers = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1))
    layers[0].requires_grad_(False)  # as `frozen_stages` does
    return layers


def trains(layers):
    return [parameter.requires_grad for parameter in layers.parameters()]


def test_the_body_trains_after_its_steps_except_what_never_does():
    layers = backbone()
    as_built = trains(layers)
    frozen = BackboneFreezer(layers, num_steps=2)
    assert [frozen.set(step) for step in range(4)] == [True, False, True, False]
    assert trains(layers) == as_built
    assert layers.training
    assert frozen.set(0)
    assert not any(trains(layers))


def test_a_frozen_backbone_keeps_its_statistics_also_after_the_model_was_set_to_train():
    layers = backbone()
    frozen = BackboneFreezer(layers, num_steps=1)
    layers.train()
    frozen.set(0)
    layers(torch.rand(2, 1, 4, 4))
    assert layers[1].num_batches_tracked == 0


def test_without_frozen_steps_nothing_is_touched():
    layers = backbone().eval()
    as_built = trains(layers)
    assert not BackboneFreezer(layers, num_steps=0).set(0)
    assert trains(layers) == as_built
    assert not layers.training
