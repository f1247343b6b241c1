"""Images into a detector and boxes out of it, as the original data loaders did it."""

import torch
from torch import Tensor
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes
from torchvision.ops import clip_boxes_to_image

from dyhead_det.models.compat.resize_uint8 import resize_like_cv2, resize_like_pil
from dyhead_det.models.compat.resized_size import detectron2_size, mmdet_size

_SIZE_RULES = {"detectron2": detectron2_size, "mmdet": mmdet_size}
_RESIZERS = {"auto": resize_like_pil, "cv2": resize_like_cv2}


class CompatTransform(GeneralizedRCNNTransform):  # type: ignore[misc]  # untyped base
    """Images in, boxes out, as the original data loaders and post-processing did it."""

    def __init__(self, transform: GeneralizedRCNNTransform, *, resize: str, compat: str) -> None:
        """Take sizes, mean, std and padding from torchvision's.

        Args:
            transform: What a detector was built with.
            resize: Whose interpolation: ``auto`` is Pillow's.
            compat: Whose rounding of sizes.
        """
        super().__init__(
            transform.min_size,
            transform.max_size,
            transform.image_mean,
            transform.image_std,
            size_divisible=transform.size_divisible,
        )
        self.size_rule = _SIZE_RULES[compat]
        self.resample = _RESIZERS[resize]

    def normalize(self, image: Tensor) -> Tensor:
        """Leave the image as it is: the original normalises after resizing."""
        return image

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Resize as 8-bit pixels, then normalise.

        Args:
            image: (3, H, W) in [0, 1]. Pixels that were 8-bit come back exactly.
            target: What is in it, if training.

        Returns:
            The normalised image (3, H', W') and the target with its boxes resized.
        """
        height, width = image.shape[-2:]
        short_edge = self.torch_choice(self.min_size) if self.training else self.min_size[-1]
        size_hw = self.size_rule(height, width, short_edge=short_edge, long_edge=self.max_size)
        if image.is_meta:  # only sizes are asked for
            resized = image.new_empty(3, *size_hw)
        else:
            pixels = (image * 255).round().to(torch.uint8)
            resized = self.resample(pixels, size_hw).to(image.dtype)
        if target is not None:
            boxes = resize_boxes(target["boxes"], (height, width), size_hw)
            target = {**target, "boxes": boxes}
        return self._normalised(resized), target

    def _normalised(self, pixels: Tensor) -> Tensor:
        """Normalise (3, H, W) on the scale 0..255, as the original, to round as it does."""
        mean, std = (
            torch.tensor([255 * value for value in values], device=pixels.device)
            for values in (self.image_mean, self.image_std)
        )
        return (pixels - mean[:, None, None]) / std[:, None, None]

    def postprocess(
        self,
        result: list[dict[str, Tensor]],
        image_shapes: list[tuple[int, int]],
        original_image_sizes: list[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        """Scale boxes to the images that were given, clip them there, drop what is empty."""
        if self.training:
            return result
        scaled = super().postprocess(result, image_shapes, original_image_sizes)
        cleaned = []
        for prediction, size_hw in zip(scaled, original_image_sizes, strict=True):
            boxes = clip_boxes_to_image(prediction["boxes"], size_hw)
            keep = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
            clipped = {**prediction, "boxes": boxes}
            cleaned.append({name: values[keep] for name, values in clipped.items()})
        return cleaned
