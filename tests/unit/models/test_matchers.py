"""FCOS's matcher gives what torchvision's FCOS trains on, number by number."""

from types import SimpleNamespace

import pytest
import torch
from torchvision.models.detection import FCOS

from dyhead_det.models.matchers import match_fcos

STRIDES = (8, 16, 32, 64, 128)


def anchors_of(height: int, width: int) -> tuple[torch.Tensor, list[int]]:
    """One anchor of a cell's size on every corner of a cell, as torchvision's FCOS has them."""
    anchors, counts = [], []
    for stride in STRIDES:
        y, x = torch.meshgrid(
            torch.arange(0, height, stride), torch.arange(0, width, stride), indexing="ij"
        )
        centers = torch.stack([x, y], dim=-1).flatten(0, 1).float()
        anchors.append(torch.cat([centers - stride / 2, centers + stride / 2], dim=1))
        counts.append(len(centers))
    return torch.cat(anchors), counts


def torchvisions(boxes, anchors, counts, radius):
    """Let torchvision's method match, with a head that returns what it is given."""
    model = SimpleNamespace(
        center_sampling_radius=radius,
        head=SimpleNamespace(compute_loss=lambda _targets, _outputs, _anchors, matched: matched),
    )
    (matched,) = FCOS.compute_loss(model, [{"boxes": boxes}], {}, [anchors], counts)
    return matched


@pytest.mark.parametrize("radius", [0.5, 1.5, 4.0])
@pytest.mark.parametrize("size_hw", [(128, 128), (256, 384)])
def test_boxes_of_all_sizes_are_matched_as_by_torchvision(size_hw, radius):
    anchors, counts = anchors_of(*size_hw)
    height, width = size_hw
    for num_boxes in (1, 3, 20):
        corners = torch.rand(num_boxes, 2) * torch.tensor([width, height])
        # From a pixel to many levels' worth; some lie outside the image in part.
        sizes = 2 ** (9 * torch.rand(num_boxes, 2))
        boxes = torch.cat([corners, corners + sizes], dim=1)
        got = match_fcos(
            anchors, boxes, num_anchors_per_level=counts, center_sampling_radius=radius
        )
        expected = torchvisions(boxes, anchors, counts, radius)
        assert torch.equal(got, expected)
        assert got.max() >= 0 or num_boxes < 20


def test_an_image_without_boxes_is_all_background():
    anchors, counts = anchors_of(128, 128)
    got = match_fcos(
        anchors, torch.zeros(0, 4), num_anchors_per_level=counts, center_sampling_radius=1.5
    )
    assert got.dtype == torch.int64
    assert got.tolist() == [-1] * len(anchors)


def test_of_two_boxes_the_smaller_is_taken():
    anchors, counts = anchors_of(128, 128)
    boxes = torch.tensor([[0.0, 0, 60, 60], [10.0, 10, 50, 50]])
    got = match_fcos(anchors, boxes, num_anchors_per_level=counts, center_sampling_radius=1.5)
    # (32, 32) lies near both centers, and in the finest level the furthest side may be 64 away.
    at_32_32 = (anchors[: counts[0], :2] + 4 == 32).all(dim=1).nonzero().item()
    assert got[at_32_32] == 1
