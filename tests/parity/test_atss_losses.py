"""ATSS's losses equal their formulas written out for one anchor and class after the other."""

import math

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.image_list import ImageList

from dyhead_det.models.atss.detector import DELTA_WEIGHTS, SquareAnchors
from dyhead_det.models.atss.loss import atss_losses


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def loop_focal(logit: float, is_object: bool) -> float:
    p = sigmoid(logit)
    if is_object:
        return -0.25 * (1 - p) ** 2 * math.log(p)
    return -0.75 * p**2 * math.log(1 - p)


def loop_decode(delta: list[float], anchor: list[float]) -> list[float]:
    width, height = anchor[2] - anchor[0], anchor[3] - anchor[1]
    x = anchor[0] + width / 2 + delta[0] * 0.1 * width
    y = anchor[1] + height / 2 + delta[1] * 0.1 * height
    w = width * math.exp(min(delta[2] * 0.2, math.log(1000 / 16)))
    h = height * math.exp(min(delta[3] * 0.2, math.log(1000 / 16)))
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def area(box: list[float]) -> float:
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def loop_giou_loss(a: list[float], b: list[float]) -> float:
    overlap = area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
    union = area(a) + area(b) - overlap
    hull = area([min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])])
    return 1 - (overlap / union - (hull - union) / hull)


def loop_centerness(anchor: list[float], box: list[float]) -> float:
    x, y = (anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2
    left, top, right, bottom = x - box[0], y - box[1], box[2] - x, box[3] - y
    across = min(left, right) / max(left, right)
    down = min(top, bottom) / max(top, bottom)
    return math.sqrt(across * down)


def loop_losses(
    outputs: dict[str, Tensor],
    anchors: list[list[float]],
    targets: list[dict[str, Tensor]],
    matched: list[list[int]],
) -> dict[str, float]:
    num_positive = sum(index >= 0 for image in matched for index in image)
    focal = giou = bce = centerness_sum = 0.0
    for image, owners in enumerate(matched):
        for a, owner in enumerate(owners):
            label = int(targets[image]["labels"][owner]) if owner >= 0 else None
            for k, logit in enumerate(outputs["cls_logits"][image, a].tolist()):
                focal += loop_focal(logit, k == label)
            if owner < 0:
                continue
            box = targets[image]["boxes"][owner].tolist()
            central = loop_centerness(anchors[a], box)
            decoded = loop_decode(outputs["bbox_regression"][image, a].tolist(), anchors[a])
            giou += central * loop_giou_loss(decoded, box)
            p = sigmoid(outputs["bbox_ctrness"][image, a].item())
            bce -= central * math.log(p) + (1 - central) * math.log(1 - p)
            centerness_sum += central
    return {
        "classification": focal / num_positive,
        "bbox_regression": 2 * giou / centerness_sum,
        "bbox_ctrness": bce / num_positive,
    }


def test_losses_of_two_images_one_of_them_empty_equal_the_loops() -> None:
    torch.manual_seed(0)
    anchor_generator = SquareAnchors([8], anchor_offset=0.5)
    image = ImageList(torch.zeros(1, 3, 32, 40), [(32, 40)])
    anchors = anchor_generator(image, [torch.zeros(1, 1, 4, 5)])[0]
    num_anchors = len(anchors)
    outputs = {
        "cls_logits": torch.randn(2, num_anchors, 3),
        "bbox_regression": 3 * torch.randn(2, num_anchors, 4),
        "bbox_ctrness": torch.randn(2, num_anchors, 1),
    }
    outputs["bbox_regression"][0, 8, 2] = 30.0  # beyond the largest size
    targets = [
        {
            "boxes": torch.tensor([[2.0, 3.0, 37.0, 30.0], [10.0, 1.0, 30.0, 30.0]]),
            "labels": torch.tensor([2, 0]),
        },
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    matched = torch.full((2, num_anchors), -1)
    matched[0, [6, 7, 8]] = torch.tensor([0, 1, 0])

    decode = BoxCoder(DELTA_WEIGHTS).decode_single
    got = atss_losses(outputs, [anchors, anchors], targets, list(matched), decode=decode)
    expected = loop_losses(outputs, anchors.tolist(), targets, matched.tolist())
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name].item(), value, rtol=1e-5, atol=1e-6)
