"""ATSS: anchors, head, assignment by hand, losses at the edges, and the whole detector."""

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from dyhead_det.config.schema import (
    ATSSConfig,
    BackboneConfig,
    DyHeadConfig,
    InputConfig,
    ModelConfig,
)
from dyhead_det.models.atss.detector import ATSS, ATSSHead, SquareAnchors
from dyhead_det.models.atss.loss import centerness
from dyhead_det.models.detectors import Detector, build_detector
from dyhead_det.models.matchers import match_atss

STRIDES = [8, 16, 32]


class TinyBackbone(nn.Module):
    """Three levels of 16 channels from means over cells."""

    out_channels = 16

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Conv2d(3, 16, kernel_size=1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {str(n): self.project(nn.functional.avg_pool2d(images, n)) for n in STRIDES}


def tiny_atss(
    num_classes: int = 3, *, num_tower_convs: int = 1, topk_by="product", clip="before_nms"
) -> ATSS:
    torch.manual_seed(0)
    return ATSS(
        TinyBackbone(),
        transform=GeneralizedRCNNTransform(96, 160, [0.5] * 3, [0.25] * 3, size_divisible=32),
        anchor_generator=SquareAnchors(STRIDES, anchor_offset=0.5),
        head=ATSSHead(
            16, num_classes, num_levels=3, num_tower_convs=num_tower_convs, prediction_kernel=1
        ),
        num_candidates=9,
        score_thresh=0.05,
        nms_thresh=0.6,
        detections_per_img=100,
        topk_candidates=1000,
        topk_by=topk_by,
        clip=clip,
    )


def target(*boxes: tuple[float, float, float, float]) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "labels": torch.arange(len(boxes)) % 3,
    }


IMAGES = [torch.linspace(0, 1, 3 * 96 * 128).view(3, 96, 128), torch.full((3, 120, 90), 0.3)]
TARGETS = [target((10, 12, 70, 60), (50, 40, 120, 90)), target()]


# --- anchors and head ----------------------------------------------------------------------------


def anchors_of(strides: list[int], sizes: list[tuple[int, int]], offset: float) -> Tensor:
    maps = [torch.zeros(2, 1, *size) for size in sizes]
    images = ImageList(torch.zeros(2, 3, 9, 9), [(9, 9), (8, 7)])
    per_image = SquareAnchors(strides, anchor_offset=offset)(images, maps)
    assert len(per_image) == 2
    assert torch.equal(per_image[0], per_image[1])
    return per_image[0]


def test_anchors_are_eight_cells_wide_around_the_middles_of_cells() -> None:
    got = anchors_of([8, 16], [(1, 2), (1, 1)], 0.5)
    # Centers (4, 4), (12, 4) and (8, 8); sides 64 and 128.
    expected = [[-28, -28, 36, 36], [-20, -28, 44, 36], [-56, -56, 72, 72]]
    assert got.tolist() == expected


def test_anchors_with_offset_zero_sit_on_the_corners_of_cells() -> None:
    assert anchors_of([8], [(1, 2)], 0.0).tolist() == [[-32, -32, 32, 32], [-24, -32, 40, 32]]


@pytest.mark.parametrize(("num_tower_convs", "kernel"), [(0, 1), (0, 3), (1, 1), (4, 3)])
def test_the_head_has_towers_and_kernels_as_asked(num_tower_convs: int, kernel: int) -> None:
    head = ATSSHead(48, 5, num_levels=2, num_tower_convs=num_tower_convs, prediction_kernel=kernel)
    outputs = head([torch.randn(2, 48, 3, 4), torch.randn(2, 48, 2, 2)])
    assert outputs["cls_logits"].shape == (2, 16, 5)
    assert outputs["bbox_regression"].shape == (2, 16, 4)
    assert outputs["bbox_ctrness"].shape == (2, 16, 1)
    tower = 48 * 48 * 9 + 48 + 2 * 48
    predictions = (5 + 4 + 1) * (48 * kernel**2 + 1)
    total = sum(parameter.numel() for parameter in head.parameters())
    assert total == 2 * num_tower_convs * tower + predictions + 2


def test_places_are_listed_row_after_row() -> None:
    head = ATSSHead(16, 1, num_levels=1, num_tower_convs=0, prediction_kernel=1)
    nn.init.constant_(head.cls_logits.weight, 1 / 16)
    nn.init.zeros_(head.cls_logits.bias)
    x = torch.arange(6.0).view(1, 1, 2, 3).expand(1, 16, 2, 3)
    torch.testing.assert_close(head([x])["cls_logits"].flatten(), torch.arange(6.0))


def test_each_level_has_its_own_scale_of_the_deltas() -> None:
    head = ATSSHead(16, 1, num_levels=2, num_tower_convs=0, prediction_kernel=1)
    with torch.no_grad():
        head.scales.copy_(torch.tensor([1.0, 3.0]))
    x = torch.randn(1, 16, 1, 1)
    first, second = head([x, x])["bbox_regression"][0]
    torch.testing.assert_close(second, 3 * first)


def test_a_fresh_head_believes_that_one_place_in_a_hundred_holds_an_object() -> None:
    head = ATSSHead(16, 3, num_levels=1, num_tower_convs=2, prediction_kernel=1)
    torch.testing.assert_close(head.cls_logits.bias.sigmoid(), torch.full((3,), 0.01))
    assert 0.005 < head.cls_tower[0].weight.std() < 0.02
    assert not head.cls_tower[0].bias.any()
    assert (head.cls_tower[1].weight == 1).all()


# --- assignment ----------------------------------------------------------------------------------


def test_an_image_without_boxes_is_all_background() -> None:
    anchors = torch.rand(6, 4)
    got = match_atss(anchors, torch.zeros(0, 4), num_anchors_per_level=[4, 2], num_candidates=9)
    assert got.dtype == torch.int64
    assert got.tolist() == [-1] * 6


def test_a_single_candidate_is_taken() -> None:
    # Its overlap is its own mean, and one number has no spread.
    anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    boxes = torch.tensor([[1.0, 1.0, 9.0, 9.0]])
    assert match_atss(anchors, boxes, num_anchors_per_level=[1], num_candidates=9).tolist() == [0]


def test_an_anchor_goes_to_the_box_that_it_overlaps_most() -> None:
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    boxes = torch.tensor([[0.0, 0.0, 20.0, 10.0], [0.0, 0.0, 10.0, 11.0], [0.0, 0.0, 30.0, 10.0]])
    assert match_atss(anchors, boxes, num_anchors_per_level=[1], num_candidates=9).tolist() == [1]


def test_an_anchor_centered_outside_the_box_or_on_its_side_is_not_taken() -> None:
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    for left, expected in ((4.9, 0), (4.995, -1), (5.0, -1), (6.0, -1)):
        boxes = torch.tensor([[left, 0.0, left + 10, 10.0]])
        assert match_atss(anchors, boxes, num_anchors_per_level=[1], num_candidates=9).tolist() == [
            expected
        ]


def test_centerness_by_hand() -> None:
    anchors = torch.tensor([[-1.0, -1, 1, 1], [0.0, 0, 2, 2]])  # centers (0, 0), (1, 1)
    boxes = torch.tensor([[-1.0, -2, 4, 2], [0.0, 0, 2, 2]])
    # Left 1, right 4, top and bottom 2: sqrt(1 / 4).
    assert centerness(anchors, boxes).tolist() == [0.5, 1.0]


# --- losses --------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_boxes", [True, False])
def test_every_parameter_gets_a_gradient(with_boxes: bool) -> None:
    model = tiny_atss()
    targets = TARGETS if with_boxes else [target(), target()]
    losses = model(IMAGES, targets)
    assert set(losses) == {"classification", "bbox_regression", "bbox_ctrness"}
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert with_boxes is False or parameter.grad.any(), name


def test_without_boxes_only_the_classes_have_a_loss() -> None:
    losses = tiny_atss()(IMAGES, [target(), target()])
    assert losses["classification"] > 0
    assert losses["bbox_regression"] == 0
    assert losses["bbox_ctrness"] == 0


def test_losses_under_bfloat16_autocast_are_float32_and_near() -> None:
    model = tiny_atss()
    expected = model(IMAGES, TARGETS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(IMAGES, TARGETS)
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, expected[name], rtol=0.02, atol=0.02)


def test_training_without_targets_is_refused() -> None:
    with pytest.raises(ValueError, match="needs targets"):
        tiny_atss()(IMAGES)


def test_targets_are_left_as_they_were() -> None:
    before = [{key: value.clone() for key, value in each.items()} for each in TARGETS]
    tiny_atss()(IMAGES, TARGETS)
    for each, old in zip(TARGETS, before, strict=True):
        assert all(torch.equal(each[key], old[key]) for key in each)


# --- detection -----------------------------------------------------------------------------------


def eager_atss(**options: str) -> ATSS:
    """A detector that sees objects in half of all places."""
    model = tiny_atss(**options).eval()
    nn.init.zeros_(model.head.cls_logits.bias)
    nn.init.normal_(model.head.bbox_reg.weight, std=0.5)
    return model


@torch.no_grad()
@pytest.mark.parametrize("clip", ["before_nms", "after"])
def test_detections_are_sorted_inside_the_image_and_at_most_a_hundred(clip: str) -> None:
    found = eager_atss(clip=clip)(IMAGES)
    for image, detections in zip(IMAGES, found, strict=True):
        boxes, scores, labels = (detections[key] for key in ("boxes", "scores", "labels"))
        assert 10 < len(boxes) == len(scores) == len(labels) <= 100
        assert torch.equal(scores, scores.sort(descending=True).values)
        assert boxes.min() >= 0
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert boxes[:, 2].max() <= image.shape[2] + 1e-3
        assert boxes[:, 3].max() <= image.shape[1] + 1e-3
        assert set(labels.tolist()) <= {0, 1, 2}


@torch.no_grad()
def test_the_threshold_is_on_the_class_score_alone() -> None:
    model = eager_atss()
    nn.init.zeros_(model.head.cls_logits.weight)
    nn.init.zeros_(model.head.bbox_ctrness.weight)
    nn.init.constant_(model.head.bbox_ctrness.bias, -5.0)
    scores = model(IMAGES)[0]["scores"]
    expected = 0.5 * torch.tensor(-5.0).sigmoid()  # far below the threshold of 0.05
    torch.testing.assert_close(scores, expected.expand(len(scores)))
    assert len(scores) > 0


@torch.no_grad()
def test_a_detector_that_sees_nothing_returns_empty_tensors() -> None:
    model = tiny_atss().eval()
    nn.init.constant_(model.head.cls_logits.bias, -20.0)
    for detections in model(IMAGES):
        assert detections["boxes"].shape == (0, 4)
        assert detections["scores"].shape == detections["labels"].shape == (0,)


@torch.no_grad()
def test_bfloat16_autocast_keeps_boxes_in_float32() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        detections = eager_atss()(IMAGES)[0]
    assert detections["boxes"].dtype == detections["scores"].dtype == torch.float32


def test_a_few_steps_find_the_one_object() -> None:
    model = tiny_atss(num_classes=1, num_tower_convs=2)
    image = torch.zeros(3, 96, 128)
    box = torch.tensor([[40.0, 24.0, 88.0, 72.0]])
    # Ramps, so that each cell can tell where in the object it is.
    image[0, 24:72, 40:88] = torch.linspace(0.2, 1, 48)
    image[1, 24:72, 40:88] = torch.linspace(0.2, 1, 48)[:, None]
    targets = [{"boxes": box, "labels": torch.tensor([0])}]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
    for _ in range(100):
        optimizer.zero_grad()
        sum(model([image], targets).values()).backward()
        optimizer.step()
    with torch.no_grad():
        best = model.eval()([image])[0]
    assert best["scores"][0] > 0.4
    torch.testing.assert_close(best["boxes"][:1], box, rtol=0, atol=4.0)


# --- from a configuration ------------------------------------------------------------------------


def build(detector: ATSSConfig, dyhead: DyHeadConfig | None) -> Detector:
    torch.manual_seed(0)
    config = ModelConfig(
        detector=detector,
        backbone=BackboneConfig(name="resnet18", weights="none", norm="normal"),
        channels=32,
        dyhead=dyhead,
        input=InputConfig(short_edge=96, long_edge=128),
    )
    return build_detector(config, num_classes=3, load_backbone_weights=False)


@pytest.mark.parametrize(
    "dyhead",
    [None, DyHeadConfig(num_blocks=1), DyHeadConfig(num_blocks=1, scheme="stacked")],
    ids=["plain", "levels", "stacked"],
)
def test_the_configured_detector_trains_all_its_parameters(dyhead: DyHeadConfig | None) -> None:
    detector = build(ATSSConfig(name="atss"), dyhead)
    losses = detector(IMAGES, TARGETS)
    sum(losses.values()).backward()
    without = [n for n, parameter in detector.named_parameters() if parameter.grad is None]
    assert without == []


def test_settings_reach_the_network() -> None:
    detector = build(
        ATSSConfig(
            name="atss",
            num_tower_convs=2,
            prediction_kernel=3,
            anchor_offset=0.0,
            num_candidates=5,
            score_thresh=0.1,
            nms_thresh=0.4,
            detections_per_img=7,
            topk_candidates=11,
            topk_by="class_score",
            clip="after",
        ),
        None,
    )
    network = detector.network
    assert detector.first_label == 0
    assert len(network.head.cls_tower) == 6
    assert network.head.cls_logits.kernel_size == (3, 3)
    assert network.anchor_generator.anchor_offset == 0.0
    assert network.anchor_generator.strides == (8, 16, 32, 64, 128)
    assert network.num_candidates == 5
    assert (network.score_thresh, network.nms_thresh) == (0.1, 0.4)
    assert (network.detections_per_img, network.topk_candidates) == (7, 11)
    assert (network.topk_by, network.clip) == ("class_score", "after")
    assert network.transform.size_divisible == 32


def test_the_default_head_is_the_official_one_with_dyhead() -> None:
    network = build(ATSSConfig(name="atss"), DyHeadConfig(num_blocks=1)).network
    assert len(network.head.cls_tower) == len(network.head.bbox_tower) == 0
    assert network.head.cls_logits.kernel_size == (1, 1)
    assert network.transform.size_divisible == 128


@torch.no_grad()
def test_a_batch_of_two_is_two_singles() -> None:
    detector = build(ATSSConfig(name="atss", score_thresh=0.0), DyHeadConfig(num_blocks=1)).eval()
    same_size = [IMAGES[0], IMAGES[0].flip(2)]
    batched = detector(same_size)
    for image, expected in zip(same_size, batched, strict=True):
        single = detector([image])[0]
        torch.testing.assert_close(single["scores"], expected["scores"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(single["boxes"], expected["boxes"], rtol=1e-3, atol=1e-2)
