"""Augmentation of training images; resizing and normalizing belong to the detector, once."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from dyhead_det.contracts import Target

# The usual mean color of photographs: about zero, like the detector's padding, once normalized.
_FILL = (124, 116, 104)


# An object of this many pixels, or of more, is out of sight where a crop leaves less of it.
_LEAST_SIDE = 1.0


class Augmentation:
    """Apply torchvision transforms to an image and its boxes together.

    Boxes that a crop leaves nothing of, or a sliver, are dropped with their labels. Small objects
    are not: what is less than a pixel wide after resizing stays a target, as in detectron2.

    The random numbers are those of torch's default generator.

    Args:
        geometry: transforms of the whole image, which lose no object.
        crop: applied after them.
        colors: applied to what is left.
    """

    def __init__(
        self,
        geometry: Sequence[v2.Transform] = (),
        *,
        crop: v2.Transform | None = None,
        colors: Sequence[v2.Transform] = (),
    ) -> None:
        self.geometry, self.crop, self.colors = tuple(geometry), crop, tuple(colors)
        self._clamp = v2.ClampBoundingBoxes()

    def __call__(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        """Return a changed copy.

        Args:
            image: (3, H, W) uint8.
            target: boxes of that image.

        Returns:
            The image, (3, H', W') uint8, and its target without boxes that are out of sight.
        """
        sample: Any = (tv_tensors.Image(image), bounding_boxes(image, target))
        for transform in (*self.geometry, self._clamp):
            sample = transform(*sample)
        whole = sample[1].as_subclass(Tensor)  # (N, 4)
        for transform in (*([self.crop] if self.crop else ()), *self.colors, self._clamp):
            sample = transform(*sample)
        seen = sample[1].as_subclass(Tensor)
        keep = _are_in_sight(seen, whole)
        augmented: Target = {**target, "boxes": seen[keep], "labels": target["labels"][keep]}
        return sample[0].as_subclass(Tensor), augmented


def bounding_boxes(image: Tensor, target: Target) -> tv_tensors.BoundingBoxes:
    """Return the boxes of a target, (N, 4) xyxy, as transforms take them: on their image."""
    return tv_tensors.BoundingBoxes(
        target["boxes"],
        format=tv_tensors.BoundingBoxFormat.XYXY,
        canvas_size=(image.shape[-2], image.shape[-1]),
    )


class _ScaleJitter(v2.ScaleJitter):  # type: ignore[misc]  # torchvision has no types
    """Torchvision's, which would make no pixel of the short side of a very long picture."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the size of one picture."""
        params: dict[str, Any] = super().make_params(flat_inputs)
        return {**params, "size": tuple(max(1, edge) for edge in params["size"])}


def _are_in_sight(seen: Tensor, whole: Tensor) -> Tensor:
    """Tell which boxes are left after a crop, (N,): a pixel of each side, or all of a smaller one.

    Args:
        seen: (N, 4) after the crop.
        whole: (N, 4) before it.
    """
    sides, before = (boxes[:, 2:] - boxes[:, :2] for boxes in (seen, whole))
    rounding = 0.99  # a crop moves boxes, which changes their last digits
    return ((sides > 0) & (sides >= rounding * before.clamp(max=_LEAST_SIDE))).all(dim=1)


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
    geometry: list[v2.Transform] = []
    if horizontal_flip > 0:
        geometry.append(v2.RandomHorizontalFlip(horizontal_flip))
    if vertical_flip > 0:
        geometry.append(v2.RandomVerticalFlip(vertical_flip))
    crop = None
    if large_scale_jitter is not None:
        geometry.append(_ScaleJitter((size, size), scale_range=large_scale_jitter))
        crop = v2.RandomCrop((size, size), pad_if_needed=True, fill=_FILL)
    colors = [v2.RandomPhotometricDistort()] if photometric else []
    return Augmentation(geometry, crop=crop, colors=colors) if geometry or colors else None
