"""FCOS is torchvision's own: the same weights give its builder's losses and detections."""

import pytest
import torch
from torch import Tensor
from torchvision.models.detection import FCOS, fcos_resnet50_fpn

from dyhead_det.config.schema import (
    BackboneConfig,
    DyHeadConfig,
    FCOSConfig,
    InputConfig,
    ModelConfig,
)
from dyhead_det.models.detectors import Detector, build_detector

IMAGES = [torch.linspace(0, 1, 3 * 96 * 128).view(3, 96, 128), torch.full((3, 120, 90), 0.3)]


def target(*boxes: tuple[float, float, float, float]) -> dict[str, Tensor]:
    return {"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": torch.arange(len(boxes)) % 3}


TARGETS = [target((10, 12, 70, 60), (50, 40, 120, 90)), target()]


def build(
    backbone: str, *, channels: int = 256, dyhead: DyHeadConfig | None = None, **settings: float
) -> Detector:
    torch.manual_seed(0)
    config = ModelConfig(
        detector=FCOSConfig(name="fcos", **settings),
        backbone=BackboneConfig(name=backbone, weights="none", norm="normal"),
        channels=channels,
        dyhead=dyhead,
        input=InputConfig(short_edge=96, long_edge=160),
    )
    return build_detector(config, num_classes=3, load_backbone_weights=False)


def test_the_same_weights_give_torchvisions_losses_and_detections() -> None:
    ours = build("resnet50", score_thresh=0.0)
    theirs = fcos_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=3,
        min_size=96,
        max_size=160,
        score_thresh=0.0,
    )
    names = ours.network.state_dict().keys()
    assert names == theirs.state_dict().keys()
    theirs.load_state_dict(ours.network.state_dict())

    losses = ours(IMAGES, TARGETS)
    expected_losses = theirs(IMAGES, TARGETS)
    assert losses.keys() == expected_losses.keys()
    for name, loss in losses.items():
        assert torch.equal(loss, expected_losses[name]), name

    with torch.no_grad():
        found, expected = ours.eval()(IMAGES), theirs.eval()(IMAGES)
    for image, expected_image in zip(found, expected, strict=True):
        assert len(image["boxes"]) > 0
        assert all(torch.equal(image[key], expected_image[key]) for key in expected_image)


def test_settings_reach_torchvisions_class_and_defaults_are_its_own() -> None:
    own = fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3)
    settings = {
        "center_sampling_radius": 2.5,
        "score_thresh": 0.1,
        "nms_thresh": 0.4,
        "detections_per_img": 7,
        "topk_candidates": 11,
    }
    default = build("resnet18", channels=32).network
    changed = build("resnet18", channels=32, **settings).network
    assert type(changed) is FCOS
    for name, value in settings.items():
        assert getattr(default, name) == getattr(own, name)
        assert getattr(changed, name) == value


@pytest.mark.parametrize("scheme", ["levels", "stacked"])
@pytest.mark.parametrize("with_boxes", [True, False])
def test_every_parameter_gets_a_gradient_with_dyhead(scheme: str, with_boxes: bool) -> None:
    dyhead = DyHeadConfig(num_blocks=1, scheme=scheme)
    detector = build("resnet18", channels=32, dyhead=dyhead)
    targets = TARGETS if with_boxes else [target(), target()]
    losses = detector(IMAGES, targets)
    sum(losses.values()).backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_bfloat16_autocast_stays_near_float32() -> None:
    detector = build("resnet18", channels=32, dyhead=DyHeadConfig(num_blocks=1))
    expected = detector(IMAGES, TARGETS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = detector(IMAGES, TARGETS)
    for name, loss in losses.items():
        torch.testing.assert_close(loss.float(), expected[name], rtol=0.03, atol=0.03)


def test_with_dyhead_images_are_padded_to_the_coarsest_stride() -> None:
    plain = build("resnet18", channels=32)
    with_dyhead = build("resnet18", channels=32, dyhead=DyHeadConfig(num_blocks=1))
    assert plain.network.transform.size_divisible == 32
    assert with_dyhead.network.transform.size_divisible == 128
