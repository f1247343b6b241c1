"""Matches of detections with ground truth in one image, as COCO makes them at one IoU threshold."""

import torch
from torch import Tensor
from torchvision.ops import box_area, box_iou

from dyhead_det.contracts import Prediction, Target

# The threshold of AP50.
IOU_THRESHOLD = 0.5


def match_image(
    truth: Target, prediction: Prediction, crowds: Target, *, iou_threshold: float = IOU_THRESHOLD
) -> tuple[Tensor, Tensor, Tensor]:
    """Match the detections of an image, best first, each with the nearest object of its class.

    Args:
        truth: the annotated objects.
        prediction: D detections, best first.
        crowds: regions of many objects of a class: detections inside are neither right nor wrong.
        iou_threshold: intersection over union from which on a detection is right.

    Returns:
        Which detections are right, (D,) bool; which of those that are not lie in a crowd region,
        (D,) bool; which objects were found, (N,) bool.
    """
    iou = box_iou(truth["boxes"], prediction["boxes"])  # (N, D)
    iou[truth["labels"][:, None] != prediction["labels"][None]] = -1
    is_found = torch.zeros(len(iou), dtype=torch.bool)
    is_right = torch.zeros(iou.shape[1], dtype=torch.bool)
    for detection in range(iou.shape[1]):
        candidates = iou[:, detection].masked_fill(is_found, -1)  # (N,)
        if len(candidates) and candidates.max() >= iou_threshold:
            is_found[candidates.argmax()] = True
            is_right[detection] = True
    is_in_crowd = _lies_in(prediction, crowds) >= iou_threshold
    return is_right, is_in_crowd & ~is_right, is_found


def _lies_in(prediction: Prediction, crowds: Target) -> Tensor:
    """Return the largest share of each detection that lies in a crowd region of its class, (D,)."""
    if not len(crowds["labels"]):
        return torch.zeros(len(prediction["labels"]))
    boxes, regions = prediction["boxes"][:, None], crowds["boxes"][None]  # (D, 1, 4), (1, R, 4)
    sizes = torch.minimum(boxes[..., 2:], regions[..., 2:]) - torch.maximum(
        boxes[..., :2], regions[..., :2]
    )
    shares = sizes.clamp(min=0).prod(dim=2) / box_area(prediction["boxes"]).clamp(min=1e-9)[:, None]
    shares[prediction["labels"][:, None] != crowds["labels"][None]] = 0
    return torch.amax(shares, dim=1)
