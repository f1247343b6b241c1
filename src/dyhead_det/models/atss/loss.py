"""What ATSS learns from: which anchors answer for which box, and the three losses on them.

Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive Training
Sample Selection" (arXiv 1912.02424), with the constants of the authors' code.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

# How far inside a box, in pixels, the center of an anchor must lie.
MARGIN = 0.01
FOCAL_ALPHA = 0.25
FOCAL_GAMMA = 2.0
BOX_LOSS_WEIGHT = 2.0
# Keeps sums of centerness away from zero.
TINY = torch.finfo(torch.float32).eps


@torch.no_grad()
def assign_anchors(
    anchors: Tensor,
    boxes: Tensor,
    *,
    num_anchors_per_level: Sequence[int],
    num_candidates: int,
) -> Tensor:
    """Let every box choose its anchors by a threshold of its own (the paper's algorithm 1).

    A box's candidates are the nearest anchors of each level; it takes those that overlap it by at
    least the mean plus the standard deviation of its candidates' overlaps and have their center
    inside it. An anchor that several boxes take goes to the one it overlaps most.

    Args:
        anchors: (A, 4), level after level.
        boxes: (N, 4).
        num_anchors_per_level: how many of the anchors belong to each level.
        num_candidates: how many candidates a box has per level.

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
            _centers(boxes),
            _centers(level_anchors),
            compute_mode="donot_use_mm_for_euclid_dist",
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


def _centers(boxes: Tensor) -> Tensor:
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def distances_to_sides(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Return how far anchor centers lie inside the left, top, right and bottom sides of boxes.

    Args:
        anchors: (..., 4).
        boxes: (..., 4), of a shape that goes with `anchors`.

    Returns:
        Pixels, negative outside, (..., 4).
    """
    centers = _centers(anchors)
    return torch.cat((centers - boxes[..., :2], boxes[..., 2:] - centers), dim=-1)


def centerness(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Say how central the centers of anchors lie in boxes (FCOS, arXiv 1904.01355, equation 3).

    Args:
        anchors: (P, 4), with centers inside their boxes.
        boxes: (P, 4).

    Returns:
        1 in the middle, towards 0 at the sides, (P,).
    """
    left_top, right_bottom = torch.split(distances_to_sides(anchors, boxes), 2, dim=-1)
    ratios = torch.minimum(left_top, right_bottom) / torch.maximum(left_top, right_bottom)
    return ratios.prod(dim=-1).sqrt()


def atss_losses(
    head_outputs: dict[str, Tensor],
    anchors: Sequence[Tensor],
    targets: Sequence[dict[str, Tensor]],
    matched: Sequence[Tensor],
    *,
    decode: Callable[[Tensor, Tensor], Tensor],
) -> dict[str, Tensor]:
    """Return the losses of a batch, in float32 also under autocast.

    Each stays attached to the outputs when no anchor is taken, so that all parameters always have
    gradients.

    Args:
        head_outputs: as `ATSSHead.forward` returns them.
        anchors: (A, 4) per image.
        targets: ``boxes`` (N, 4) and ``labels`` (N,) in 0..K-1 per image.
        matched: what `assign_anchors` says, (A,) per image.
        decode: deltas and anchors, each (P, 4), to boxes (P, 4).

    Returns:
        The scalars ``classification``, ``bbox_regression`` and ``bbox_ctrness``.
    """
    is_positive = torch.stack(list(matched)) >= 0  # (B, A)
    with torch.autocast(is_positive.device.type, enabled=False):
        logits = head_outputs["cls_logits"].float()
        deltas = head_outputs["bbox_regression"][is_positive].float()  # (P, 4)
        centerness_logits = head_outputs["bbox_ctrness"][is_positive].float().squeeze(1)  # (P,)
        positive_anchors = torch.cat([a[m >= 0] for a, m in zip(anchors, matched, strict=True)])
        boxes, labels = (
            torch.cat([t[key][m[m >= 0]] for t, m in zip(targets, matched, strict=True)])
            for key in ("boxes", "labels")
        )
        class_targets = torch.zeros_like(logits)
        class_targets[is_positive, labels] = 1
        centerness_targets = centerness(positive_anchors, boxes)
        num_positive = is_positive.sum().clamp(min=1)
        class_loss = sigmoid_focal_loss(
            logits, class_targets, alpha=FOCAL_ALPHA, gamma=FOCAL_GAMMA, reduction="sum"
        )
        box_losses = generalized_box_iou_loss(decode(deltas, positive_anchors), boxes)
        box_loss = (box_losses * centerness_targets).sum()
        centerness_loss = F.binary_cross_entropy_with_logits(
            centerness_logits, centerness_targets, reduction="sum"
        )
    centerness_sum = centerness_targets.sum().clamp(min=TINY)
    return {
        "classification": class_loss / num_positive,
        "bbox_regression": BOX_LOSS_WEIGHT * box_loss / centerness_sum,
        "bbox_ctrness": centerness_loss / num_positive,
    }
