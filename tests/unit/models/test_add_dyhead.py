"""DyHead in torchvision's own detectors: by `DyHeadBackbone`, and by `add_dyhead`."""

import doctest
from importlib import import_module

import pytest
import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.models.detection import (
    FCOS,
    FasterRCNN,
    MaskRCNN,
    RetinaNet,
    fasterrcnn_mobilenet_v3_large_320_fpn,
    ssdlite320_mobilenet_v3_large,
)
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from dyhead_det import DyHead, DyHeadBackbone, add_dyhead

IMAGE = torch.linspace(0, 1, 3 * 64 * 96).view(3, 64, 96)
SIZES = {"min_size": 64, "max_size": 96}
TWO_STAGES = {
    "rpn_post_nms_top_n_test": 20,
    "box_detections_per_img": 5,
    "box_score_thresh": 0.0,
}
ONE_STAGE = {"score_thresh": 0.0, "topk_candidates": 20}


def build(kind):
    """Build the detector that torchvision's builder of this class makes, on a ResNet-18."""
    torch.manual_seed(0)
    is_two_stage = issubclass(kind, FasterRCNN)
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        trainable_layers=5,
        returned_layers=None if is_two_stage else [2, 3, 4],
        extra_blocks=None if is_two_stage else LastLevelP6P7(256, 256),
    )
    settings = TWO_STAGES if is_two_stage else ONE_STAGE
    return kind(backbone, num_classes=3, **SIZES, **settings).eval()


def targets():
    return [
        {
            "boxes": torch.tensor([[5.0, 5, 40, 50]]),
            "labels": torch.tensor([1]),
            "masks": torch.ones(1, 64, 96, dtype=torch.uint8),
        }
    ]


@pytest.mark.parametrize("kind", [FasterRCNN, MaskRCNN, RetinaNet, FCOS])
def test_every_detector_with_an_fpn_keeps_what_it_found_and_learns(kind):
    detector = build(kind)
    names = set(detector.state_dict())
    with torch.no_grad():
        before = detector([IMAGE])[0]
        assert add_dyhead(detector, 1, residual_scale=0.0) is detector
        after = detector([IMAGE])[0]
    assert len(before["boxes"]) > 0
    # A change that counts for nothing: the same numbers, bit by bit.
    assert all(torch.equal(before[key], after[key]) for key in before)
    new = set(detector.state_dict()) - names
    assert names < set(detector.state_dict())
    assert all(name.startswith("backbone.dyhead.") for name in new)
    losses = detector.train()([IMAGE], targets())
    sum(losses.values()).backward()
    assert detector.backbone.dyhead.residual_scale.grad.abs().sum() > 0


def test_at_the_usual_start_the_maps_are_nearly_those_before():
    detector = build(RetinaNet)
    images = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        before = detector.backbone(images)
        after = add_dyhead(detector, 2).backbone(images)
    assert list(before) == list(after)
    for name, x in before.items():
        assert 0 < (after[name] - x).norm() < 0.1 * x.norm()


def test_modes_and_statistics_stay():
    detector = build(RetinaNet).train()
    detector.backbone.body.layer1.eval()
    buffers = {name: buffer.clone() for name, buffer in detector.named_buffers()}
    add_dyhead(detector, 1)
    assert detector.backbone.training
    assert detector.backbone.dyhead.training
    assert not detector.backbone.body.layer1.training
    assert detector.backbone.body.layer2.training
    for name, buffer in detector.named_buffers():
        assert name not in buffers or torch.equal(buffer, buffers[name])


def test_a_detector_without_an_fpn_and_one_with_dyhead_are_refused():
    ssd = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    with pytest.raises(TypeError, match="that of SSD is SSDLiteFeatureExtractorMobileNet"):
        add_dyhead(ssd)
    with pytest.raises(TypeError, match="that of Linear is NoneType"):
        add_dyhead(nn.Linear(1, 1))
    detector = add_dyhead(build(RetinaNet), 1)
    with pytest.raises(TypeError, match="RetinaNet has a DyHead already"):
        add_dyhead(detector)


def test_levels_that_do_not_halve_are_refused_and_the_detector_left_as_it_was():
    """Both maps of this backbone have the stride 32."""
    detector = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)
    before = detector.backbone
    with pytest.raises(ValueError, match="half the size"):
        add_dyhead(detector, 1)
    assert detector.backbone is before


def test_a_backbone_with_dyhead_is_one_for_torchvisions_detectors():
    stages = {f"layer{n}": str(n - 1) for n in (1, 2, 3, 4)}
    body = create_feature_extractor(resnet18(), stages)
    fpn = FeaturePyramidNetwork([64, 128, 256, 512], 256, LastLevelMaxPool())
    backbone = DyHeadBackbone(body, fpn, DyHead(256, num_blocks=1))
    detector = FasterRCNN(backbone, num_classes=3, **SIZES)
    assert backbone.out_channels == 256
    maps = backbone(torch.rand(1, 3, 128, 128))
    assert list(maps) == ["0", "1", "2", "3", "pool"]
    losses = detector([IMAGE], targets())
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in backbone.dyhead.parameters())
    assert detector.eval()([IMAGE])[0]["boxes"].shape[1] == 4


def test_a_backbone_tells_what_is_missing():
    body, dyhead = nn.Conv2d(3, 16, 1), DyHead(16, num_blocks=1)
    with pytest.raises(TypeError, match="give out_channels: Identity does not tell its own"):
        DyHeadBackbone(body, nn.Identity(), dyhead)
    backbone = DyHeadBackbone(body, nn.Identity(), dyhead, out_channels=16)
    with pytest.raises(TypeError, match="Conv2d returned Tensor"):
        backbone(torch.rand(1, 3, 8, 8))


@pytest.mark.parametrize("module", ["add_dyhead", "backbones.pyramid"])
def test_the_examples_of_the_docstrings_run(module):
    failed, attempted = doctest.testmod(import_module(f"dyhead_det.models.{module}"))
    assert failed == 0
    assert attempted > 0
