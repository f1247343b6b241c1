"""ATSS's detections equal both published recipes written as loops over levels, places and classes.

detectron2's models rank by the product and cut boxes at the end; mmdetection's rank by the class
score and cut boxes before they suppress each other.
"""

import math

import pytest
import torch
from torch import Tensor, nn

from dyhead_det.models.atss.detector import ATSS, SquareAnchors

IMAGE_HW = (50, 70)
SIZES = [(8, 10), (4, 5)]
NUM_CLASSES = 3
SCORE_THRESH, NMS_THRESH, TOPK, BEST = 0.4, 0.5, 40, 25


def small_atss(topk_by: str, clip: str) -> ATSS:
    return ATSS(
        nn.Identity(),
        transform=nn.Identity(),
        anchor_generator=SquareAnchors([8, 16], anchor_offset=0.5),
        head=nn.Identity(),
        num_candidates=9,
        score_thresh=SCORE_THRESH,
        nms_thresh=NMS_THRESH,
        detections_per_img=BEST,
        topk_candidates=TOPK,
        topk_by=topk_by,
        clip=clip,
    )


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def clipped(box: list[float]) -> list[float]:
    height, width = IMAGE_HW
    limits = [width, height, width, height]
    return [min(max(value, 0.0), limit) for value, limit in zip(box, limits, strict=True)]


def area(box: list[float]) -> float:
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def iou(a: list[float], b: list[float]) -> float:
    overlap = area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
    return overlap / (area(a) + area(b) - overlap)


def decode(deltas: list[float], x: float, y: float, side: float) -> list[float]:
    x, y = x + deltas[0] * 0.1 * side, y + deltas[1] * 0.1 * side
    w, h = side * math.exp(deltas[2] * 0.2), side * math.exp(deltas[3] * 0.2)
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def loop_detect(outputs: dict[str, Tensor], topk_by: str, clip: str) -> list[tuple]:
    """One image: what is found as (score, label, box), best first."""
    found = []
    first = 0
    for (height, width), stride in zip(SIZES, [8, 16], strict=True):
        level = []
        for place in range(height * width):
            x, y = (place % width + 0.5) * stride, (place // width + 0.5) * stride
            box = decode(outputs["bbox_regression"][first + place].tolist(), x, y, 8.0 * stride)
            central = sigmoid(outputs["bbox_ctrness"][first + place].item())
            for label, logit in enumerate(outputs["cls_logits"][first + place].tolist()):
                if sigmoid(logit) > SCORE_THRESH:
                    product = sigmoid(logit) * central
                    rank = product if topk_by == "product" else sigmoid(logit)
                    level.append((rank, product, label, box))
        level.sort(key=lambda candidate: -candidate[0])
        found += level[:TOPK]
        first += height * width
    found = [(product, label, box) for _, product, label, box in found]
    if clip == "before_nms":
        found = [(product, label, clipped(box)) for product, label, box in found]
        found = [candidate for candidate in found if area(candidate[2]) > 0]
    found.sort(key=lambda candidate: -candidate[0])
    kept: list[tuple] = []
    for product, label, box in found:
        rivals = [other for _, other_label, other in kept if other_label == label]
        if all(iou(box, other) <= NMS_THRESH for other in rivals):
            kept.append((product, label, box))
    kept = kept[:BEST]
    if clip == "after":
        kept = [(product, label, clipped(box)) for product, label, box in kept]
    return [candidate for candidate in kept if area(candidate[2]) > 0]


@pytest.mark.parametrize("topk_by", ["product", "class_score"])
@pytest.mark.parametrize("clip", ["before_nms", "after"])
def test_detections_equal_the_loops(topk_by: str, clip: str) -> None:
    torch.manual_seed(0)
    per_level = [height * width for height, width in SIZES]
    num_anchors = sum(per_level)
    outputs = {
        "cls_logits": torch.randn(2, num_anchors, NUM_CLASSES),
        "bbox_regression": 4 * torch.randn(2, num_anchors, 4) - 2,
        "bbox_ctrness": 2 * torch.randn(2, num_anchors, 1),
    }
    model = small_atss(topk_by, clip)
    anchors = torch.cat(
        [
            model.anchor_generator._anchors_of_level(torch.zeros(1, 1, *size), stride)
            for size, stride in zip(SIZES, [8, 16], strict=True)
        ]
    )
    got = model.postprocess_detections(outputs, [anchors, anchors], per_level, [IMAGE_HW, IMAGE_HW])
    all_expected = [
        loop_detect({key: value[i] for key, value in outputs.items()}, topk_by, clip)
        for i in range(2)
    ]
    for image, expected in zip(got, all_expected, strict=True):
        assert len(expected) > 10
        scores, labels, boxes = (list(column) for column in zip(*expected, strict=True))
        assert image["labels"].tolist() == labels
        torch.testing.assert_close(image["scores"], torch.tensor(scores))
        torch.testing.assert_close(image["boxes"], torch.tensor(boxes), rtol=1e-5, atol=1e-4)


def test_the_four_combinations_are_four_different_results() -> None:
    # Otherwise the test above would prove less than it seems to.
    torch.manual_seed(0)
    outputs = {
        "cls_logits": torch.randn(100, NUM_CLASSES),
        "bbox_regression": 4 * torch.randn(100, 4) - 2,
        "bbox_ctrness": 2 * torch.randn(100, 1),
    }
    results = [
        tuple(score for score, _, _ in loop_detect(outputs, topk_by, clip))
        for topk_by in ("product", "class_score")
        for clip in ("before_nms", "after")
    ]
    assert len(set(results)) == 4
