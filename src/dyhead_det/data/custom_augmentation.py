"""Augmentation by a transform of one's own: one of torchvision.transforms.v2, or a function."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from dyhead_det.contracts import Target
from dyhead_det.data.transforms import bounding_boxes


class CustomAugmentation:
    """Apply a foreign transform to an image and its target, and bring back what batches are of.

    Args:
        transform: Takes an image (`tv_tensors.Image`, uint8) and a target (`boxes`, a
            `tv_tensors.BoundingBoxes`, and `labels`) and returns both; every transform of
            `torchvision.transforms.v2` does.
    """

    def __init__(self, transform: Callable[..., Any]) -> None:
        self.transform = transform
        self._to_bytes = v2.ToDtype(torch.uint8, scale=True)
        self._to_xyxy = v2.Compose(
            [v2.ConvertBoundingBoxFormat("XYXY"), v2.ClampBoundingBoxes()],
        )

    def __call__(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        """Return a changed copy.

        Args:
            image: (3, H, W) uint8.
            target: Boxes of that image.

        Returns:
            The image, (3, H', W') uint8, and its target without boxes that have no area left.

        Raises:
            TypeError: If the transform returns anything else than an image and a target.
        """
        given = {"boxes": bounding_boxes(image, target), "labels": target["labels"]}
        new_image, boxes, labels = _unpack(self.transform(tv_tensors.Image(image), given))
        pixels = self._to_bytes(new_image).as_subclass(Tensor)
        xyxy = self._to_xyxy(boxes).as_subclass(Tensor).float()  # (N, 4)
        has_area = (xyxy[:, 2:] > xyxy[:, :2]).all(dim=1)
        return pixels, {**target, "boxes": xyxy[has_area], "labels": labels[has_area]}


def _unpack(
    result: Any,  # noqa: ANN401 - whatever a foreign function returns
) -> tuple[tv_tensors.Image, tv_tensors.BoundingBoxes, Tensor]:
    """Return image, boxes and labels from what a transform has returned."""
    try:
        image, target = result
        boxes, labels = target["boxes"], target["labels"]
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise TypeError(
            "augmentation: must return an image and a target with `boxes` and `labels`, as it was "
            f"given them; it returned {type(result).__name__}"
        ) from error
    if not isinstance(image, Tensor) or image.ndim != 3 or image.shape[0] != 3:
        found = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(f"augmentation: the image must stay a tensor (3, H, W), it is {found}")
    if not isinstance(boxes, tv_tensors.BoundingBoxes) or len(boxes) != len(labels):
        raise TypeError(
            "augmentation: `boxes` must stay tv_tensors.BoundingBoxes, one for each label; they "
            f"are {type(boxes).__name__}, {len(boxes)} for {len(labels)} labels"
        )
    return tv_tensors.Image(image), boxes, labels
