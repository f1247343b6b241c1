"""Boxes that nothing can be learned from are refused before the first loss."""

from collections.abc import Sequence

import torch
from torch import Tensor


def check_boxes(boxes: Sequence[Tensor]) -> None:
    """Refuse boxes without area, and such as are no numbers, with the error of torchvision.

    Torchvision's own check lets NaN and infinity pass, which become a loss of NaN.

    Args:
        boxes: (N, 4) per image.

    Raises:
        AssertionError: As torchvision's detectors, naming the first such box and its image.
    """
    if _has_area(torch.cat(list(boxes))).all():  # once for the batch: on a GPU it is a wait
        return
    for index, boxes_of_image in enumerate(boxes):
        for box in boxes_of_image[~_has_area(boxes_of_image)].tolist():
            raise AssertionError(
                "All bounding boxes should have positive height and width."
                f" Found invalid box {box} for target at index {index}."
            )


def _has_area(boxes: Tensor) -> Tensor:
    """Say which boxes (N, 4) have an area that is a positive number, (N,)."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return ((sides > 0) & sides.isfinite()).all(dim=1)
