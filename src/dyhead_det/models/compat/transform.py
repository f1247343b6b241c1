"""Images into a detector and boxes out of it, as detectron2's and mmdetection's loaders did it."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from dyhead_det.models.compat.resize_uint8 import resize_like_cv2, resize_like_pil
from dyhead_det.models.resized_size import detectron2_size, mmdet_size
from dyhead_det.models.transform import DetectorTransform

_SIZE_RULES = {"detectron2": detectron2_size, "mmdet": mmdet_size}
_RESIZERS = {"auto": resize_like_pil, "cv2": resize_like_cv2}


class CompatTransform(DetectorTransform):
    """Images are resized as 8-bit pixels and then normalized; boxes are clipped at the end."""

    def __init__(
        self,
        *,
        short_edges: Sequence[int],
        long_edge: int,
        mean: Sequence[float],
        std: Sequence[float],
        size_divisible: int,
        resize: str,
        compat: str,
    ) -> None:
        """Note sizes and rules.

        Args:
            short_edges: As `DetectorTransform`, and so are the next four.
            long_edge: Pixels.
            mean: Of each channel.
            std: Of each channel.
            size_divisible: Pixels.
            resize: Whose interpolation: ``auto`` is Pillow's, ``cv2`` OpenCV's.
            compat: Whose rounding of sizes: ``detectron2`` or ``mmdet``.
        """
        super().__init__(
            short_edges=short_edges,
            long_edge=long_edge,
            mean=mean,
            std=std,
            size_divisible=size_divisible,
            size_rule=_SIZE_RULES[compat],
        )
        self.resize_pixels = _RESIZERS[resize]

    def normalize(self, image: Tensor) -> Tensor:
        """Leave the image as it is: detectron2 and mmdetection normalize after resizing."""
        return image

    def resample(self, image: Tensor, size_hw: tuple[int, int]) -> Tensor:
        """Resize (3, H, W) in [0, 1] as 8-bit pixels, then normalize."""
        if image.is_meta:  # only sizes are asked for
            return image.new_empty(3, *size_hw)
        pixels = (image * 255).round().to(torch.uint8)  # those that were 8-bit come back exactly
        return self._normalized(self.resize_pixels(pixels, size_hw).to(image.dtype))

    def _normalized(self, pixels: Tensor) -> Tensor:
        """Normalize (3, H, W) on the scale 0..255, as the originals do, to round alike.

        Images of one size may lie one behind the other, as (B * 3, H, W).
        """
        mean, std = (
            torch.tensor([255 * value for value in values], device=pixels.device)
            for values in (self.image_mean, self.image_std)
        )
        images = pixels.reshape(-1, 3, *pixels.shape[1:])
        normalized: Tensor = (images - mean[:, None, None]) / std[:, None, None]
        return normalized.flatten(0, 1)

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
