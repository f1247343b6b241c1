"""No detector makes the host wait for a GPU more often than torchvision's, but for one check."""

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator

from device_waits import device_waits
from dyhead_det import build_detector
from dyhead_det.config.schema import (
    ATSSConfig,
    FasterRCNNConfig,
    FCOSConfig,
    InputConfig,
    ModelConfig,
    RetinaNetConfig,
)
from dyhead_det.models.compat.resize_uint8 import resize_like_cv2, resize_like_pil
from dyhead_det.ops import roi_align

ANCHOR_SIZES = ((16.0,), (32.0,), (64.0,), (128.0,), (256.0,))
NUM_CLASSES = 3
# Whether all boxes of the batch have an area is asked before torchvision asks image by image.
OWN_CHECK = 1

CONFIGS = {
    "fasterrcnn": FasterRCNNConfig(name="fasterrcnn", anchor_sizes=ANCHOR_SIZES),
    "retinanet": RetinaNetConfig(name="retinanet", anchor_sizes=ANCHOR_SIZES),
    "fcos": FCOSConfig(name="fcos"),
    "atss": ATSSConfig(name="atss"),
}


class Strided(nn.Module):
    """A pyramid of every so manieth pixel, through a convolution."""

    out_channels = 64

    def __init__(self, first_stride: int) -> None:
        super().__init__()
        self.strides = [first_stride * 2**level for level in range(5)]
        self.project = nn.Conv2d(3, self.out_channels, kernel_size=1)

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict(
            (str(level), self.project(images[:, :, ::stride, ::stride]))
            for level, stride in enumerate(self.strides)
        )


def torchvision_detector(name: str) -> nn.Module:
    """What a detector is compared with: its own kind, for ATSS the FCOS that it resembles."""
    sizes = {"num_classes": NUM_CLASSES, "min_size": 96, "max_size": 128}
    anchors = AnchorGenerator(ANCHOR_SIZES, ((0.5, 1.0, 2.0),) * 5)
    if name == "fasterrcnn":  # whose number of classes counts the background
        sizes["num_classes"] += 1
        return detection.FasterRCNN(Strided(4), rpn_anchor_generator=anchors, **sizes)
    if name == "retinanet":
        return detection.RetinaNet(Strided(8), anchor_generator=anchors, **sizes)
    return detection.FCOS(Strided(8), **sizes)


def own_detector(name: str) -> nn.Module:
    config = ModelConfig(
        detector=CONFIGS[name], dyhead=None, channels=64, input=InputConfig(short_edge=96)
    )
    return build_detector(
        config, num_classes=NUM_CLASSES, backbone=Strided(4 if name == "fasterrcnn" else 8)
    )


def waits_of_a_step(detector: nn.Module) -> int:
    images = [torch.rand(3, 96, 128), torch.rand(3, 96, 120)]
    boxes, labels = torch.tensor([[10.0, 10, 60, 60], [30, 20, 90, 80]]), torch.tensor([1, 2])
    targets = [{"boxes": boxes, "labels": labels} for _ in images]
    with device_waits() as waits:
        losses = detector.train()(images, targets)
        sum(losses.values()).backward()
    return waits.total()


@torch.no_grad()
def waits_of_images(detector: nn.Module, num_images: int) -> int:
    images = [torch.rand(3, 96, 128)] * num_images
    with device_waits() as waits:
        detector.eval()(images)
    return waits.total()


@pytest.mark.parametrize("name", CONFIGS)
def test_a_detector_waits_no_more_often_than_torchvisions(name, monkeypatch):
    # As on a GPU: what pools fast on a CPU is not used there.
    monkeypatch.setattr(roi_align, "is_gathered", lambda _: False)
    torch.manual_seed(0)
    ours, theirs = own_detector(name), torchvision_detector(name)
    assert waits_of_a_step(ours) <= waits_of_a_step(theirs) + OWN_CHECK
    for num_images in (1, 2):
        assert waits_of_images(ours, num_images) <= waits_of_images(theirs, num_images)


@pytest.mark.parametrize("resize", [resize_like_pil, resize_like_cv2])
def test_the_images_of_imported_models_are_resized_without_waiting(resize):
    pixels = torch.empty(3, 48, 64, dtype=torch.uint8, device="meta")
    with device_waits() as waits:
        assert resize(pixels, (30, 40)).shape == (3, 30, 40)
    assert waits == {}
