"""Objects far below a pixel are targets that every detector can train on."""

import pytest
import torch

from dyhead_det.models.detectors import build_detector

from conftest import SMALL_DETECTORS, make_config


@pytest.mark.parametrize("name", SMALL_DETECTORS)
def test_losses_and_gradients_of_tiny_and_flat_objects_are_finite(name):
    # FCOS's group norm needs 32 channels.
    config = make_config(model={"detector": SMALL_DETECTORS[name], "channels": 32})
    detector = build_detector(config.model, num_classes=2, load_backbone_weights=False).train()
    boxes = torch.tensor([[60, 60, 60.01, 60.01], [10, 10, 40, 40], [0, 0, 64, 0.01]])
    target = {"boxes": boxes, "labels": torch.tensor([0, 1, 1])}
    losses = detector([torch.rand(3, 64, 64)] * 2, [target] * 2)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad.isfinite().all() for p in detector.parameters() if p.grad is not None)
