"""A batch taken in parts gives the gradients and the losses of the whole batch."""

import pytest
import torch

from dyhead_det.training.run import build_run
from dyhead_det.training.step import train_step

from conftest import SMALL_DETECTORS, make_config


@pytest.fixture
def batch():
    """Five images of one size with very different numbers of boxes, none at all too."""
    images = [torch.randint(256, (3, 64, 64), dtype=torch.uint8) for _ in range(5)]
    targets = []
    for image_id, num_boxes in enumerate([3, 0, 1, 6, 0], start=10):
        corners = 40 * torch.rand(num_boxes, 2)
        boxes = torch.cat((corners, corners + 6 + 18 * torch.rand(num_boxes, 2)), dim=1)
        labels = torch.randint(2, (num_boxes,))
        targets.append({"boxes": boxes, "labels": labels, "image_id": image_id})
    return images, targets


def step(root, batch, detector, *, device, accumulate, dyhead=None, optim=None, amp="off"):
    config = make_config(
        root,
        model={
            "detector": SMALL_DETECTORS[detector],
            "channels": 64,
            "backbone": {"norm": "frozen"},
            "dyhead": dyhead,
        },
        optim={"name": "sgd", "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, **(optim or {})},
        schedule={"warmup_steps": 0},
        train={"batch_size": 5, "accumulate": accumulate, "amp": amp},
    )
    run = build_run(config, root / "run", device, is_new=True)
    run.parts.detector.train()
    before = {name: p.detach().clone() for name, p in run.parts.detector.named_parameters()}
    _, loss = train_step(run, *batch)
    changes = {name: p.detach() - before[name] for name, p in run.parts.detector.named_parameters()}
    return torch.cat([change.flatten() for change in changes.values()]), loss


def relative_difference(one, other):
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("dyhead", [None, {"num_blocks": 1}], ids=["plain", "dyhead"])
@pytest.mark.parametrize("detector", SMALL_DETECTORS)
def test_parts_add_up_to_the_batch(tiny_dataset, batch, detector, dyhead, device):
    whole, loss = step(tiny_dataset, batch, detector, device=device, accumulate=1, dyhead=dyhead)
    parts, loss_of_parts = step(
        tiny_dataset, batch, detector, device=device, accumulate=3, dyhead=dyhead
    )
    assert loss_of_parts == pytest.approx(loss, rel=1e-5)
    assert relative_difference(parts, whole) < 1e-5


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_the_norm_that_is_clipped_is_that_of_the_whole_batch(tiny_dataset, batch, amp, device):
    """With plain SGD the step is as long as lr times the norm that gradients are clipped to."""
    optim = {"clip_norm": 0.01}
    change, _ = step(
        tiny_dataset, batch, "fasterrcnn", device=device, accumulate=5, optim=optim, amp=amp
    )
    assert float(change.norm()) == pytest.approx(0.1 * 0.01, rel=1e-2)


def test_a_batch_with_fewer_images_than_parts_is_taken_image_by_image(tiny_dataset, batch, device):
    two = tuple(part[:2] for part in batch)
    whole, _ = step(tiny_dataset, two, "atss", device=device, accumulate=1)
    parts, _ = step(tiny_dataset, two, "atss", device=device, accumulate=5)
    assert relative_difference(parts, whole) < 1e-5
