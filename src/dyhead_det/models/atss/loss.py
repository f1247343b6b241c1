"""The three losses of ATSS on its anchors, which `matchers.match_atss` has given to boxes.

Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive Training
Sample Selection" (arXiv 1912.02424), with the constants of the authors' code.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from dyhead_det.models.full_precision import full_precision
from dyhead_det.models.matchers import distances_to_sides

FOCAL_ALPHA = 0.25
FOCAL_GAMMA = 2.0
BOX_LOSS_WEIGHT = 2.0
# Keeps sums of centerness away from zero.
TINY = torch.finfo(torch.float32).eps


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
    """Return the losses of a batch, in float32 also under autocast, in float64 for such outputs.

    Each stays attached to the outputs when no anchor is taken, so that all parameters always have
    gradients.

    Args:
        head_outputs: as `ATSSHead.forward` returns them.
        anchors: (A, 4) per image.
        targets: ``boxes`` (N, 4) and ``labels`` (N,) in 0..K-1 per image.
        matched: what `match_atss` says, (A,) per image.
        decode: deltas and anchors, each (P, 4), to boxes (P, 4).

    Returns:
        The scalars ``classification``, ``bbox_regression`` and ``bbox_ctrness``.
    """
    box_of_anchor = torch.stack(list(matched))  # (B, A)
    foreground = torch.where(box_of_anchor >= 0)  # image and anchor, each (P,); a GPU waits here
    first_boxes = accumulate((len(target["boxes"]) for target in targets), initial=0)
    box_of_batch = torch.stack([m + first for m, first in zip(matched, first_boxes, strict=False)])
    boxes, labels = (
        torch.cat([target[key] for target in targets])[box_of_batch[foreground]]
        for key in ("boxes", "labels")
    )
    with torch.autocast(box_of_anchor.device.type, enabled=False):
        logits = full_precision(head_outputs["cls_logits"])
        deltas = full_precision(head_outputs["bbox_regression"][foreground])  # (P, 4)
        centerness_logits = full_precision(head_outputs["bbox_ctrness"][foreground]).squeeze(1)
        foreground_anchors = torch.stack(list(anchors))[foreground]
        class_targets = torch.zeros_like(logits)
        class_targets[(*foreground, labels)] = 1
        centerness_targets = centerness(foreground_anchors, boxes)
        num_foreground = max(len(labels), 1)
        class_loss = sigmoid_focal_loss(
            logits, class_targets, alpha=FOCAL_ALPHA, gamma=FOCAL_GAMMA, reduction="sum"
        )
        box_losses = generalized_box_iou_loss(decode(deltas, foreground_anchors), boxes)
        box_loss = (box_losses * centerness_targets).sum()
        centerness_loss = F.binary_cross_entropy_with_logits(
            centerness_logits, centerness_targets, reduction="sum"
        )
    centerness_sum = centerness_targets.sum().clamp(min=TINY)
    return {
        "classification": class_loss / num_foreground,
        "bbox_regression": BOX_LOSS_WEIGHT * box_loss / centerness_sum,
        "bbox_ctrness": centerness_loss / num_foreground,
    }
