"""Augmentation of training images; resizing and normalising belong to the detector, once."""

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from dyhead_det.contracts import Target

# The usual mean color of photographs: about zero, like the detector's padding, once normalized.
_FILL = (124, 116, 104)


class Augmentation:
    """Apply torchvision transforms to an image and its boxes together.

    The random numbers are those of torch's default generator.
    """

    def __init__(self, transforms: list[v2.Transform]) -> None:
        self.transform = v2.Compose(
            # Cropping leaves boxes that reach out of the image, or nothing of them.
            [*transforms, v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes()]
        )

    def __call__(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        """Return a changed copy.

        Args:
            image: (3, H, W) uint8.
            target: boxes of that image.

        Returns:
            The image, (3, H', W') uint8, and its target without boxes that are out of sight.
        """
        boxes = tv_tensors.BoundingBoxes(
            target["boxes"],
            format=tv_tensors.BoundingBoxFormat.XYXY,
            canvas_size=(image.shape[-2], image.shape[-1]),
        )
        sample: tuple[Any, dict[str, Any]] = (tv_tensors.Image(image), {**target, "boxes": boxes})
        new_image, new_target = self.transform(sample)
        augmented: Target = {
            **target,
            "boxes": new_target["boxes"].as_subclass(torch.Tensor),
            "labels": new_target["labels"],
        }
        return new_image.as_subclass(torch.Tensor), augmented


def build_augmentation(
    *,
    horizontal_flip: float,
    vertical_flip: float,
    photometric: bool,
    large_scale_jitter: tuple[float, float] | None,
    size: int,
) -> Augmentation | None:
    """Build the augmentation of a run.

    Args:
        horizontal_flip: probability.
        vertical_flip: probability.
        photometric: change brightness, contrast, saturation and hue.
        large_scale_jitter: least and greatest factor of a random resize, after which the picture is
            cropped or padded to `size` x `size`, so that the detector has nothing to resize.
        size: edge in pixels of the jittered picture.

    Returns:
        The augmentation, None where nothing is asked for.
    """
    transforms: list[v2.Transform] = []
    if horizontal_flip > 0:
        transforms.append(v2.RandomHorizontalFlip(horizontal_flip))
    if vertical_flip > 0:
        transforms.append(v2.RandomVerticalFlip(vertical_flip))
    if large_scale_jitter is not None:
        transforms.append(v2.ScaleJitter((size, size), scale_range=large_scale_jitter))
        transforms.append(v2.RandomCrop((size, size), pad_if_needed=True, fill=_FILL))
    if photometric:
        transforms.append(v2.RandomPhotometricDistort())
    return Augmentation(transforms) if transforms else None
