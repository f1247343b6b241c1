"""Batches without a box: all losses are numbers, and gradients reach every parameter.

A parameter without a gradient in one step is what distributed training ends at.
"""

import pytest
import torch

from dyhead_det.models.detectors import build_detector

from conftest import SMALL_DETECTORS, make_config

DYHEADS = {
    "plain": None,
    "levels": {"num_blocks": 1},
    "stacked": {"num_blocks": 1, "scheme": "stacked"},
}


def targets(*numbers_of_boxes):
    return [
        {
            "boxes": torch.tensor([[8.0, 8, 40, 40]]).repeat(number, 1),
            "labels": torch.zeros(number, dtype=torch.int64),
            "image_id": index,
        }
        for index, number in enumerate(numbers_of_boxes)
    ]


@pytest.mark.parametrize("numbers_of_boxes", [(0, 0), (0, 2)], ids=["no box", "a box in one"])
@pytest.mark.parametrize("dyhead", DYHEADS)
@pytest.mark.parametrize("detector", SMALL_DETECTORS)
def test_every_loss_is_attached_and_every_parameter_reached(detector, dyhead, numbers_of_boxes):
    config = make_config(
        model={
            "detector": SMALL_DETECTORS[detector],
            "dyhead": DYHEADS[dyhead],
            "channels": 32,
        }
    )
    model = build_detector(config.model, num_classes=2, load_backbone_weights=False).train()
    losses = model([torch.rand(3, 64, 64) for _ in range(2)], targets(*numbers_of_boxes), seed=1)
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(loss.requires_grad for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    without = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    ]
    assert without == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_without_a_single_proposal_the_losses_are_still_numbers():
    """Torchvision's mean over no proposal is NaN."""
    detector = {**SMALL_DETECTORS["fasterrcnn"], "rpn_score_thresh": 1.0}
    config = make_config(model={"detector": detector})
    model = build_detector(config.model, num_classes=2, load_backbone_weights=False).train()
    losses = model([torch.rand(3, 64, 64)], targets(0), seed=1)
    assert all(torch.isfinite(loss) for loss in losses.values())
