"""Under autocast anchors, proposals and boxes keep their digits."""

import pytest
import torch

from dyhead_det.config.model import ModelConfig
from dyhead_det.config.schema import parse_section
from dyhead_det.models.detectors import build_detector
from dyhead_det.models.full_precision import FullPrecisionAnchorGenerator

from conftest import SMALL_DETECTORS

IMAGES_HW = (320, 288)


def detector(name):
    plain = {
        "detector": SMALL_DETECTORS[name],
        "backbone": {"name": "timm/test_resnet", "weights": "none", "norm": "normal"},
        "channels": 32,
        "dyhead": {"num_blocks": 1},
        "input": {"short_edge": 288, "long_edge": 320},
    }
    return build_detector(parse_section(ModelConfig, plain), num_classes=3)


def seen_by(model, modules, run):
    """Return what modules were given or have returned, (names, tensors)."""
    seen = {}
    hooks = [
        model.get_submodule(name).register_forward_hook(
            lambda _, inputs, outputs, name=name: seen.update({name: (inputs, outputs)})
        )
        for name in modules
    ]
    run()
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("name", SMALL_DETECTORS)
def test_anchors_and_boxes_are_those_of_float32(name):
    torch.manual_seed(0)
    model = detector(name)
    images = [torch.rand(3, *IMAGES_HW)]
    place = "network.rpn.anchor_generator" if name == "fasterrcnn" else "network.anchor_generator"
    boxes = torch.tensor([[201.3, 100.7, 290.1, 307.9]])
    targets = [{"boxes": boxes, "labels": torch.tensor([1]), "image_id": 0}]

    def anchors(enabled):
        def step():
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                losses = model.train()(images, targets)
            assert all(loss.dtype == torch.float32 for loss in losses.values())

        return torch.cat(seen_by(model, [place], step)[place][1])

    half = anchors(True)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, anchors(False), rtol=0, atol=0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        (prediction,) = model.eval()(images)
    assert prediction["boxes"].dtype == prediction["scores"].dtype == torch.float32


def test_proposals_and_what_is_learned_from_them_are_exact():
    torch.manual_seed(0)
    model = detector("fasterrcnn")
    boxes = torch.tensor([[201.3, 100.7, 290.1, 307.9]])
    targets = [{"boxes": boxes, "labels": torch.tensor([1]), "image_id": 0}]

    def step():
        with torch.autocast("cpu", torch.bfloat16):
            model.train()([torch.rand(3, *IMAGES_HW)], targets)

    pool = "network.roi_heads.box_roi_pool"
    (_, proposals, _), _ = seen_by(model, [pool], step)[pool]
    assert proposals[0].dtype == torch.float32
    # The true box is among the proposals, with all its digits.
    assert (proposals[0] - boxes).abs().amax(dim=1).min() < 1e-4


def test_half_precision_leaves_no_trace_in_the_anchors():
    generator = FullPrecisionAnchorGenerator(((181.0,),), ((0.5,),))
    expected = generator.cell_anchors[0].clone()
    generator.set_cell_anchors(torch.bfloat16, torch.device("cpu"))
    generator.set_cell_anchors(torch.float32, torch.device("cpu"))
    torch.testing.assert_close(generator.cell_anchors[0], expected, rtol=0, atol=0)
