"""Each convention of the published models by itself, with numbers worked out by hand."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torchvision.models.swin_transformer import ShiftedWindowAttention
from torchvision.ops import FrozenBatchNorm2d

from dyhead_det.config.schema import (
    ATSSConfig,
    BackboneConfig,
    DyHeadConfig,
    FasterRCNNConfig,
    FCOSConfig,
    InputConfig,
    ModelConfig,
    RetinaNetConfig,
)
from dyhead_det.models.backbones.build import build_backbone
from dyhead_det.models.backbones.swin import SWIN_SHAPES, always_shift_windows
from dyhead_det.models.compat.anchors import Detectron2AnchorGenerator
from dyhead_det.models.compat.box_coder import MmdetBoxCoder
from dyhead_det.models.compat.fasterrcnn import Detectron2RoIAlign
from dyhead_det.models.compat.layers import LastLevelP6P7WithoutReLU, use_batch_norm_kernel
from dyhead_det.models.compat.transform import CompatTransform
from dyhead_det.models.detectors import build_detector
from dyhead_det.models.resized_size import detectron2_size, mmdet_size
from dyhead_det.pretrained.backbones import merge_by_channel_to_by_neighbor


def transform(**changes):
    values = {"compat": "detectron2", "resize": "auto", **changes}
    return CompatTransform(
        short_edges=(60,),
        long_edge=100,
        mean=[0.5, 0.25, 0.125],
        std=[1 / 255] * 3,
        size_divisible=64,
        **values,
    ).eval()


def test_sizes_are_rounded_half_up():
    # 640 * 800 / 427 = 1199.06; 500 * 800 / 375 = 1066.67, which torchvision would round down.
    assert detectron2_size(427, 640, short_edge=800, long_edge=1333) == (800, 1199)
    assert detectron2_size(375, 500, short_edge=800, long_edge=1333) == (800, 1067)
    assert mmdet_size(375, 500, short_edge=800, long_edge=1333) == (800, 1067)


@pytest.mark.parametrize("size", [detectron2_size, mmdet_size])
def test_the_longer_edge_is_bounded(size):
    # 300 x 1000: the factor is 1333 / 1000, so 399.9 -> 400.
    assert size(300, 1000, short_edge=800, long_edge=1333) == (400, 1333)
    assert size(1000, 300, short_edge=800, long_edge=1333) == (1333, 400)


def test_eight_bit_pixels_come_back_exactly_and_the_mean_is_taken_off_on_their_scale():
    pixels = torch.arange(60 * 60, dtype=torch.int64).remainder(256).to(torch.uint8)
    image = pixels.view(1, 60, 60).expand(3, -1, -1)
    batch, _ = transform()([image.float() / 255])
    assert batch.tensors.shape == (1, 3, 64, 64)
    for channel, mean in enumerate((127.5, 63.75, 31.875)):
        expected = image[channel].float() - mean
        assert torch.equal(batch.tensors[0, channel, :60, :60], expected)
    assert torch.equal(batch.tensors[0, :, 60:], torch.zeros(3, 4, 64))  # the mean color


def test_training_targets_are_resized_with_the_image():
    module = transform().train()
    target = {"boxes": torch.tensor([[10.0, 6.0, 20.0, 30.0]]), "labels": torch.tensor([1])}
    _, targets = module([torch.zeros(3, 30, 40)], [target])
    torch.testing.assert_close(targets[0]["boxes"], torch.tensor([[20.0, 12.0, 40.0, 60.0]]))


def test_boxes_are_scaled_per_axis_clipped_and_dropped_when_empty():
    result = [
        {
            "boxes": torch.tensor([[-5.0, 10.0, 50.0, 70.0], [90.0, 0.0, 95.0, 5.0]]),
            "scores": torch.tensor([0.9, 0.8]),
            "labels": torch.tensor([3, 4]),
        }
    ]
    # From 60 x 80 (height x width) to 30 x 20: x / 4, y / 2; the second box starts at x = 22.5.
    (found,) = transform().postprocess(result, [(60, 80)], [(30, 20)])
    assert torch.equal(found["boxes"], torch.tensor([[0.0, 5.0, 12.5, 30.0]]))
    assert found["labels"].tolist() == [3]
    assert found["scores"].tolist() == pytest.approx([0.9])


def test_anchors_are_not_rounded_and_come_size_by_size():
    cell = Detectron2AnchorGenerator(((32.0, 64.0),), ((0.5, 1.0, 2.0),)).cell_anchors[0]
    # Of side 32 and ratio height / width 1/2: 45.2548 wide and 22.6274 high.
    half_width, half_height = 32 * math.sqrt(2) / 2, 32 / math.sqrt(2) / 2
    expected = torch.tensor([-half_width, -half_height, half_width, half_height])
    torch.testing.assert_close(cell[0], expected)
    assert torch.equal(cell[1], torch.tensor([-16.0, -16.0, 16.0, 16.0]))
    assert torch.equal(cell[4], torch.tensor([-32.0, -32.0, 32.0, 32.0]))


@pytest.mark.parametrize(
    ("side", "level"),
    [(20, 0), (111.9, 0), (112, 1), (224, 2), (447.9, 2), (448, 3), (5000, 3)],
)
def test_regions_are_pooled_from_the_level_of_their_size(side, level):
    pool = Detectron2RoIAlign(["p2", "p3", "p4", "p5"], finest_level=2, output_size=(7, 7))
    maps = {f"p{2 + k}": torch.full((1, 1, 256 // 2**k, 256 // 2**k), float(k)) for k in range(4)}
    box = torch.tensor([[0.0, 0.0, side, side]])
    pooled = pool(maps, [box], [(1024, 1024)])
    assert pooled.shape == (1, 1, 7, 7)
    assert pooled[0, 0, 0, 0].item() == pytest.approx(level)


def test_pooling_is_shifted_by_half_a_pixel():
    # A map that counts its columns: with `aligned`, the middle of a bin of one pixel is read.
    ramp = torch.arange(64.0).expand(1, 1, 64, 64)
    pool = Detectron2RoIAlign(["p2"], finest_level=2, output_size=(7, 7))
    pooled = pool({"p2": ramp}, [torch.tensor([[8.0, 8.0, 36.0, 36.0]])], [(256, 256)])
    # 8 / 4 = 2 to 36 / 4 = 9: bins of one pixel whose middles are 2.5, ..., less half a pixel.
    torch.testing.assert_close(pooled[0, 0, 0], torch.arange(2.0, 9.0))


def build(detector, compat="detectron2"):
    config = ModelConfig(
        detector=detector,
        backbone=BackboneConfig(name="resnet18", weights="none"),
        channels=16,
        dyhead=None,
        input=InputConfig(short_edge=64, long_edge=64),
        compat=compat,
    )
    return build_detector(config, num_classes=3, load_backbone_weights=False).eval().network


def test_proposals_are_ranked_by_logits_that_a_sigmoid_cannot_tell_apart():
    rpn = build(FasterRCNNConfig(name="fasterrcnn")).rpn
    logits = torch.tensor([[20.0], [40.0], [30.0]])  # all have the sigmoid 1 in float32
    boxes = torch.tensor([[[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]]])
    found, scores = rpn.filter_proposals(boxes, logits, [(64, 64)], [3])
    assert scores[0].tolist() == [40, 30, 20]
    assert found[0][0].tolist() == [20, 0, 30, 10]


def test_proposals_are_clipped_without_padding_and_only_empty_ones_dropped():
    rpn = build(FasterRCNNConfig(name="fasterrcnn")).rpn
    boxes = torch.tensor([[[0.0, 0, 99, 99], [10, 10, 10.0005, 20], [60, 0, 70, 10]]])
    found, _ = rpn.filter_proposals(boxes, torch.tensor([[3.0], [2.0], [1.0]]), [(64, 60)], [3])
    # The second has a width of half a thousandth, the third lies in the padding.
    assert found[0].tolist() == [[0, 0, 60, 64], pytest.approx([10, 10, 10.0005, 20])]


def test_proposals_that_are_not_finite_are_dropped_before_clipping_makes_them_so():
    rpn = build(FasterRCNNConfig(name="fasterrcnn")).rpn
    boxes = torch.tensor([[[0.0, 0, torch.inf, 9], [0, 0, 9, torch.nan], [0, 0, 9, 9]]])
    found, _ = rpn.filter_proposals(boxes, torch.tensor([[3.0], [2.0], [1.0]]), [(64, 64)], [3])
    assert found[0].tolist() == [[0, 0, 9, 9]]


def test_small_detections_stay():
    heads = build(FasterRCNNConfig(name="fasterrcnn")).roi_heads
    logits = torch.tensor([[0.0, 0.0, 9.0, 0.0]])  # of background and three classes
    proposals = [torch.tensor([[5.0, 5.0, 5.005, 9.0]])]
    boxes, scores, labels = heads.postprocess_detections(
        logits, torch.zeros(1, 16), proposals, [(64, 64)]
    )
    assert labels[0].tolist() == [2]
    assert scores[0][0] > 0.99
    torch.testing.assert_close(boxes[0], proposals[0])


def test_images_without_proposals_have_no_detections():
    heads = build(FasterRCNNConfig(name="fasterrcnn")).roi_heads
    maps = {f"p{k}": torch.zeros(1, 16, 64 // 2**k, 64 // 2**k) for k in (2, 3, 4, 5)}
    (found,), _ = heads(maps, [torch.zeros(0, 4)], [(64, 64)])
    assert found["boxes"].shape == (0, 4)
    assert found["labels"].shape == (0,)


def test_retinanet_suppresses_before_it_clips():
    network = build(RetinaNetConfig(name="retinanet"))
    # 1000 and 100 wide, 100 high, both clipped to the same 64 x 64: their overlap is 0.1 unclipped.
    anchors = torch.tensor([[0.0, 0.0, 1000.0, 100.0], [0.0, 0.0, 100.0, 100.0]])
    logits = torch.tensor([[[5.0, -9.0, -9.0], [4.0, -9.0, -9.0]]])
    outputs = {"cls_logits": [logits], "bbox_regression": [torch.zeros(1, 2, 4)]}
    (found,) = network.postprocess_detections(outputs, [[anchors]], [(64, 64)])
    torch.testing.assert_close(found["boxes"], anchors)


def test_mmdetections_boxes_shrink_by_no_more_than_they_may_grow():
    anchors = torch.tensor([[0.0, 0.0, 1000.0, 1000.0]])
    deltas = torch.tensor([[0.0, 0.0, -99.0, 99.0]])  # bounded at the factors 0.016 and 62.5
    (box,) = MmdetBoxCoder((10.0, 10.0, 5.0, 5.0)).decode_single(deltas, anchors)
    torch.testing.assert_close(box, torch.tensor([492.0, 500 - 31250.0, 508.0, 500 + 31250.0]))
    network = build(ATSSConfig(name="atss"), compat="mmdet")
    assert isinstance(network.box_coder, MmdetBoxCoder)
    assert not isinstance(build(ATSSConfig(name="atss")).box_coder, MmdetBoxCoder)


def test_mmdetections_p7_sees_the_negative_parts_of_p6():
    block = LastLevelP6P7WithoutReLU(4, 4)
    p5 = torch.randn(1, 4, 8, 8)
    maps, names = block([p5], [p5], ["p5"])
    assert names == ["p5", "p6", "p7"]
    torch.testing.assert_close(maps[1], block.p6(p5))
    torch.testing.assert_close(maps[2], block.p7(block.p6(p5)))


def test_frozen_norms_round_like_batch_norm():
    norm = FrozenBatchNorm2d(8)
    for name, spread in (("weight", 1.0), ("bias", 1.0), ("running_mean", 3.0)):
        getattr(norm, name).normal_(std=spread)
    norm.running_var.uniform_(0.1, 2)
    own = nn.BatchNorm2d(8).eval()
    own.load_state_dict({**norm.state_dict(), "num_batches_tracked": torch.tensor(0)})
    backbone = nn.Sequential(norm)
    use_batch_norm_kernel(backbone)
    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(backbone(x), own(x))


def test_the_stride_moves_to_the_first_convolution():
    config = BackboneConfig(name="resnet50", weights="none", stride_in_1x1=True)
    backbone = build_backbone(config, stage_names=("c3", "c4", "c5"), load_weights=False)
    strides = {
        name: backbone.get_submodule(name).stride for name in ("layer3.0.conv1", "layer3.0.conv2")
    }
    assert strides == {"layer3.0.conv1": (2, 2), "layer3.0.conv2": (1, 1)}
    assert backbone.get_submodule("layer1.0.conv1").stride == (1, 1)


def test_windows_are_shifted_on_maps_that_one_window_covers():
    attention = ShiftedWindowAttention(8, [4, 4], [2, 2], 2).eval()
    backbone = nn.Sequential(attention)
    always_shift_windows(backbone)
    # On a map of one window rolled by 2, a token sees its own quarter only: change one corner, and
    # the opposite corner does not notice.
    x = torch.randn(1, 4, 4, 8)
    changed = x.clone()
    changed[0, 0, 0] += 1
    difference = (backbone(changed) - backbone(x)).abs().amax(-1)[0]
    assert (difference[:2, :2] > 0).all()
    torch.testing.assert_close(difference[2:, 2:], torch.zeros(2, 2))
    assert (attention(changed) - attention(x)).abs().amax(-1)[0, 3, 3] > 0
    # Elsewhere nothing changes.
    large = torch.randn(1, 8, 8, 8)
    assert torch.equal(backbone(large), attention(large))


def test_merging_weights_are_reordered_from_unfolded_to_stacked_neighbors():
    # What mmdetection's unfolding and Swin's stacking see of a 2 x 2 place with two channels.
    place = torch.arange(8.0).view(1, 2, 2, 2)  # (1, C, H, W)
    unfolded = nn.functional.unfold(place, 2).flatten()
    stacked = torch.cat([place[0, :, y, x] for y, x in ((0, 0), (1, 0), (0, 1), (1, 1))])
    assert torch.equal(merge_by_channel_to_by_neighbor(unfolded), stacked)


def test_swin_bodies_have_the_published_widths():
    assert {name: shape.width * 8 for name, shape in SWIN_SHAPES.items()} == {
        "swin_t": 768,
        "swin_s": 768,
        "swin_b": 1024,
        "swin_b_w12": 1024,
        "swin_l_w12": 1536,
    }


def test_compat_is_refused_where_nothing_was_published():
    with pytest.raises(ValidationError, match=r"mmdet.*is for atss, not retinanet"):
        ModelConfig(detector=RetinaNetConfig(name="retinanet"), compat="mmdet")
    with pytest.raises(ValidationError, match="not fcos"):
        ModelConfig(detector=FCOSConfig(name="fcos"), compat="detectron2")
    with pytest.raises(ValidationError, match="stride_in_1x1"):
        BackboneConfig(name="resnet18", stride_in_1x1=True)
    with pytest.raises(ValidationError, match="cv2"):
        ModelConfig(detector=RetinaNetConfig(name="retinanet"), input=InputConfig(resize="cv2"))


@pytest.mark.parametrize(
    ("detector", "compat"),
    [
        (FasterRCNNConfig(name="fasterrcnn"), "detectron2"),
        (RetinaNetConfig(name="retinanet"), "detectron2"),
        (ATSSConfig(name="atss", clip="after"), "detectron2"),
        (ATSSConfig(name="atss", topk_by="class_score"), "mmdet"),
    ],
)
def test_detectors_train_under_the_original_conventions(detector, compat):
    config = ModelConfig(
        detector=detector,
        backbone=BackboneConfig(name="resnet18", weights="none", norm="normal"),
        channels=16,
        dyhead=DyHeadConfig(num_blocks=1),
        input=InputConfig(short_edge=64, long_edge=96, multi_scale=(48, 64)),
        compat=compat,
    )
    model = build_detector(config, num_classes=3, load_backbone_weights=False).train()
    targets = [
        {"boxes": torch.tensor([[4.0, 6.0, 30.0, 40.0]]), "labels": torch.tensor([2])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    losses = model([torch.rand(3, 50, 70), torch.rand(3, 40, 40)], targets)
    total = sum(losses.values())
    total.backward()
    assert total.isfinite()
    assert model.backbone.fpn.layer_blocks[0][0].weight.grad.abs().sum() > 0
