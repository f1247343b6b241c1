"""ATSS's assignment equals the paper's algorithm written as loops over boxes and anchors."""

import math
import statistics

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from dyhead_det.models.atss.detector import SquareAnchors
from dyhead_det.models.matchers import match_atss

Box = list[float]


def iou(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(width, 0.0) * max(height, 0.0)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return overlap / (areas - overlap)


def center(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def loop_assign(
    anchors: list[Box], boxes: list[Box], per_level: list[int], num_candidates: int
) -> list[int]:
    owner = [-1] * len(anchors)
    owner_iou = [-1.0] * len(anchors)
    for index, box in enumerate(boxes):
        candidates: list[int] = []
        first = 0
        for count in per_level:
            level = sorted(
                range(first, first + count),
                key=lambda a: math.dist(center(anchors[a]), center(box)),
            )
            candidates += level[:num_candidates]
            first += count
        overlaps = [iou(anchors[a], box) for a in candidates]
        threshold = statistics.mean(overlaps) + statistics.stdev(overlaps)
        for anchor, overlap in zip(candidates, overlaps, strict=True):
            x, y = center(anchors[anchor])
            inside = min(x - box[0], y - box[1], box[2] - x, box[3] - y) > 0.01
            if overlap >= threshold and inside and overlap > owner_iou[anchor]:
                owner[anchor], owner_iou[anchor] = index, overlap
    return owner


def grid_anchors(sizes: list[tuple[int, int]], strides: list[int], offset: float) -> Tensor:
    maps = [torch.zeros(1, 1, *size) for size in sizes]
    images = ImageList(torch.zeros(1, 3, 8, 8), [(8, 8)])
    return SquareAnchors(strides, anchor_offset=offset)(images, maps)[0]


@pytest.mark.parametrize("num_candidates", [1, 3, 9])
@pytest.mark.parametrize("num_boxes", [1, 2, 30])
@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_random_boxes_get_the_anchors_of_the_loops(
    num_candidates: int, num_boxes: int, offset: float
) -> None:
    torch.manual_seed(num_candidates + 10 * num_boxes)
    sizes = [(13, 17), (7, 9), (4, 5), (2, 3), (1, 2)]
    # Doubles, as the loops, so that no threshold is met in one precision only.
    anchors = grid_anchors(sizes, [8, 16, 32, 64, 128], offset).double()
    corners = torch.rand(num_boxes, 2).double() * torch.tensor([120.0, 90.0])
    extents = 4 + 10 ** (torch.rand(num_boxes, 2).double() * 2)
    boxes = torch.cat((corners, corners + extents), dim=1)
    per_level = [height * width for height, width in sizes]

    got = match_atss(anchors, boxes, num_anchors_per_level=per_level, num_candidates=num_candidates)
    expected = loop_assign(anchors.tolist(), boxes.tolist(), per_level, num_candidates)
    assert got.tolist() == expected
    assert max(expected) >= 0


def test_overlapping_boxes_contend_for_anchors_as_in_the_loops() -> None:
    torch.manual_seed(1)
    sizes = [(10, 10), (5, 5)]
    anchors = grid_anchors(sizes, [8, 16], 0.5).double()
    # Forty boxes around one place: most anchors are wanted by several.
    middle = 40 + torch.randn(40, 2).double() * 3
    half = 20 + 10 * torch.rand(40, 2).double()
    boxes = torch.cat((middle - half, middle + half), dim=1)
    got = match_atss(anchors, boxes, num_anchors_per_level=[100, 25], num_candidates=9)
    expected = loop_assign(anchors.tolist(), boxes.tolist(), [100, 25], 9)
    assert got.tolist() == expected
    assert len(set(expected)) < 40
