"""A backbone and a detector of one's own in `build_detector`, as the documentation shows them."""

from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dyhead_det import build_detector
from dyhead_det.config.schema import (
    BackboneConfig,
    DyHeadConfig,
    FasterRCNNConfig,
    FCOSConfig,
    InputConfig,
    ModelConfig,
    RetinaNetConfig,
)
from dyhead_det.errors import ConfigError
from dyhead_det.models.backbones.pyramid import Levels
from dyhead_det.models.fcos import FCOS_SPEC, build_fcos

IMAGES = [torch.rand(3, 64, 96), torch.rand(3, 60, 40)]
TARGETS = [
    {"boxes": torch.tensor([[5.0, 5, 40, 50]]), "labels": torch.tensor([1])},
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
]


class Patches(nn.Module):
    """The smallest pyramid: means over cells, and one convolution."""

    def __init__(self, channels: int = 32, strides: tuple[int, ...] = (8, 16, 32, 64, 128)) -> None:
        super().__init__()
        self.out_channels = channels
        self.strides = strides
        self.project = nn.Conv2d(3, channels, kernel_size=1)

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict(
            (f"stride {stride}", self.project(F.avg_pool2d(images, stride, ceil_mode=True)))
            for stride in self.strides
        )


def config(detector=None, **changes):
    sections = {
        "detector": detector or FCOSConfig(name="fcos", score_thresh=0.0),
        "channels": 32,
        "dyhead": DyHeadConfig(num_blocks=1),
        "input": InputConfig(short_edge=64, long_edge=96),
        **changes,
    }
    return ModelConfig(**sections)


def require_training_and_prediction(detector):
    losses = detector.train()(IMAGES, TARGETS)
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in detector.backbone.fpn.parameters())
    assert all(p.grad is not None for p in (detector.backbone.dyhead or detector).parameters())
    with torch.no_grad():
        assert len(detector.eval()(IMAGES)) == 2


@pytest.mark.parametrize("dyhead", [None, DyHeadConfig(num_blocks=1)], ids=["plain", "dyhead"])
def test_a_backbone_of_ones_own_trains_and_predicts(dyhead):
    backbone = Patches()
    detector = build_detector(config(dyhead=dyhead), 3, backbone=backbone)
    assert detector.backbone.body is backbone
    assert (detector.backbone.dyhead is None) == (dyhead is None)
    require_training_and_prediction(detector)


def test_regions_are_pooled_from_a_backbone_of_ones_own():
    backbone = Patches(strides=(4, 8, 16, 32, 64))
    section = FasterRCNNConfig(name="fasterrcnn", box_head_channels=16)
    require_training_and_prediction(build_detector(config(section), 3, backbone=backbone))


def test_a_configured_backbone_beside_ones_own_is_warned_of(caplog):
    build_detector(config(), 3, backbone=Patches())
    assert not caplog.text
    build_detector(config(backbone=BackboneConfig(name="resnet18")), 3, backbone=Patches())
    assert "model.backbone has no effect" in caplog.text


def without_out_channels():
    backbone = Patches()
    del backbone.out_channels
    return backbone


class Tuple(Patches):
    def forward(self, images):
        return tuple(super().forward(images).values())


@pytest.mark.parametrize(
    ("backbone", "error", "message"),
    [
        (without_out_channels(), TypeError, "Patches: needs the attribute `out_channels`"),
        (nn.Identity(), TypeError, "Identity: needs the attribute `out_channels`"),
        (Tuple(), TypeError, "ordered dict of feature maps by name, Tuple returned tuple"),
        (Patches(64), ConfigError, "maps of 64 channels, not 32; set model.channels=64"),
        (Patches(strides=(8, 16, 32)), ValueError, "needs 5 maps"),
        (Patches(strides=(4, 8, 16, 32, 64)), ValueError, r"\(32, 32, 32\).*got \[\(32, 64, 64\)"),
    ],
)
def test_a_module_that_is_no_backbone_for_this_detector_is_told_why(backbone, error, message):
    with pytest.raises(error, match=message):
        build_detector(config(), 3, backbone=backbone)


def test_channels_that_dyhead_cannot_group_are_refused_and_plain_detectors_take_them():
    with pytest.raises(ValueError, match="divisible by 16"):
        config(channels=20)
    detector = build_detector(config(channels=20, dyhead=None), 3, backbone=Patches(20))
    require_training_and_prediction(detector)


def test_a_detector_of_ones_own_needs_no_entry_anywhere():
    """FCOS on three levels, whose points come from strides that the specification names."""

    def build_small_fcos(section, *, levels, **parts):
        model = build_fcos(section, levels=levels, **parts)
        sizes = tuple((stride,) for stride in levels.strides)
        model.anchor_generator = type(model.anchor_generator)(sizes, ((1.0,),) * len(sizes))
        return model

    small_fcos = replace(
        FCOS_SPEC,
        name="small_fcos",
        levels=Levels(stages=("c3", "c4"), names=("p3", "p4", "p5"), top="max_pool"),
        build=build_small_fcos,
    )
    own_config = config(backbone=BackboneConfig(name="resnet18", weights="none", norm="normal"))
    detector = build_detector(own_config, 3, spec=small_fcos)
    assert list(detector.backbone(torch.rand(1, 3, 64, 64))) == ["p3", "p4", "p5"]
    require_training_and_prediction(detector)


def test_the_default_loads_the_configured_weights():
    section = RetinaNetConfig(name="retinanet")
    missing = config(section, backbone=BackboneConfig(name="resnet18", weights="gone.pth"))
    with pytest.raises(Exception, match=r"gone\.pth"):
        build_detector(missing, 3)
