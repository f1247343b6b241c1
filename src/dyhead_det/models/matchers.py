"""Which anchors answer for which box in training: the matchers of FCOS and of ATSS.

Both return for each anchor the index of its box, or -1 for background.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

# How far inside a box, in pixels, the center of one of ATSS's anchors must lie.
MARGIN = 0.01
# From torchvision: among several boxes the smallest has the highest score, and one that is larger
# than this, in pixels squared, has none.
_LARGEST_AREA = 1e8


@torch.no_grad()
def match_fcos(
    anchors: Tensor,
    boxes: Tensor,
    *,
    num_anchors_per_level: Sequence[int],
    center_sampling_radius: float,
) -> Tensor:
    """Match as FCOS (arXiv 1904.01355) with center sampling, number by number as torchvision.

    An anchor answers for a box if its center lies in the box, not further from the box's center
    than some cells, and if the furthest side of the box lies in the range of the anchor's level:
    between 4 and 8 cells, down to 0 in the finest level and up to any in the coarsest. Of several
    boxes it takes the smallest.

    Args:
        anchors: (A, 4), level after level, each one cell wide.
        boxes: (N, 4).
        num_anchors_per_level: How many of the anchors belong to each level.
        center_sampling_radius: In cells, along each axis.

    Returns:
        For each anchor the index of its box, -1 for background, (A,).
    """
    if len(boxes) == 0:
        return torch.full((len(anchors),), -1, device=anchors.device)
    cells = anchors[:, 2] - anchors[:, 0]  # (A,)
    center_distances = (centers(anchors)[:, None] - centers(boxes)).abs().amax(dim=2)  # (A, N)
    sides = distances_to_sides(anchors[:, None], boxes)  # (A, N, 4)
    at_least, at_most = 4 * cells, 8 * cells
    at_least[: num_anchors_per_level[0]] = 0
    at_most[len(anchors) - num_anchors_per_level[-1] :] = torch.inf
    furthest = sides.amax(dim=2)
    is_match = (
        (center_distances < center_sampling_radius * cells[:, None])
        & (sides.amin(dim=2) > 0)
        & (furthest > at_least[:, None])
        & (furthest < at_most[:, None])
    )
    scores = is_match * (_LARGEST_AREA - (boxes[:, 2:] - boxes[:, :2]).prod(dim=1))
    best_score, best_box = scores.max(dim=1)
    return torch.where(best_score > 0, best_box, -1)


@torch.no_grad()
def match_atss(
    anchors: Tensor,
    boxes: Tensor,
    *,
    num_anchors_per_level: Sequence[int],
    num_candidates: int,
) -> Tensor:
    """Let every box choose its anchors by a threshold of its own (arXiv 1912.02424, algorithm 1).

    A box's candidates are the nearest anchors of each level; it takes those that overlap it by at
    least the mean plus the standard deviation of its candidates' overlaps and have their center
    inside it. An anchor that several boxes take goes to the one it overlaps most.

    Args:
        anchors: (A, 4), level after level.
        boxes: (N, 4).
        num_anchors_per_level: How many of the anchors belong to each level.
        num_candidates: How many candidates a box has per level.

    Returns:
        For each anchor the index of its box, -1 for background, (A,).
    """
    if len(boxes) == 0:
        return torch.full((len(anchors),), -1, device=anchors.device)
    candidates = _nearest_anchors(anchors, boxes, num_anchors_per_level, num_candidates)
    ious = _ious(boxes[:, None], anchors[candidates])  # (N, M), M candidates of all levels
    # The unbiased estimate; a single candidate has no spread.
    spread = ious.std(dim=1, correction=min(1, ious.shape[1] - 1), keepdim=True)
    is_close = ious >= ious.mean(dim=1, keepdim=True) + spread
    sides = distances_to_sides(anchors[candidates], boxes[:, None])  # (N, M, 4)
    is_taken = is_close & (sides.amin(dim=2) > MARGIN)
    claims = ious.new_full((len(boxes), len(anchors)), -1.0)
    claims = claims.scatter(1, candidates, ious.where(is_taken, -1.0))  # (N, A)
    best_iou, best_box = claims.max(dim=0)
    return torch.where(best_iou >= 0, best_box, -1)


def _nearest_anchors(
    anchors: Tensor, boxes: Tensor, num_anchors_per_level: Sequence[int], num_candidates: int
) -> Tensor:
    """Return the indices of each box's candidates of all levels, (N, M)."""
    indices = []
    first = 0
    for level_anchors in torch.split(anchors, list(num_anchors_per_level)):
        # The exact formula: the one by matrix products is some tenths of a pixel off.
        distances = torch.cdist(
            centers(boxes), centers(level_anchors), compute_mode="donot_use_mm_for_euclid_dist"
        )  # (N, A_l)
        num_nearest = min(num_candidates, len(level_anchors))
        indices.append(first + distances.topk(num_nearest, dim=1, largest=False).indices)
        first += len(level_anchors)
    return torch.cat(indices, dim=1)


def _ious(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the IoU of boxes (..., 4) with others of a shape that goes with it, one by one.

    Torchvision's function compares all with all, which is most of the work of an assignment.
    """
    left_top = torch.maximum(boxes[..., :2], others[..., :2])
    right_bottom = torch.minimum(boxes[..., 2:], others[..., 2:])
    overlaps = (right_bottom - left_top).clamp(min=0).prod(dim=-1)
    areas, other_areas = ((b[..., 2:] - b[..., :2]).prod(dim=-1) for b in (boxes, others))
    return overlaps / (areas + other_areas - overlaps)


def centers(boxes: Tensor) -> Tensor:
    """Return the centers (x, y) of boxes (..., 4), (..., 2)."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def distances_to_sides(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Return how far anchor centers lie inside the left, top, right and bottom sides of boxes.

    Args:
        anchors: (..., 4).
        boxes: (..., 4), of a shape that goes with `anchors`.

    Returns:
        Pixels, negative outside, (..., 4).
    """
    anchor_centers = centers(anchors)
    return torch.cat((anchor_centers - boxes[..., :2], boxes[..., 2:] - anchor_centers), dim=-1)
