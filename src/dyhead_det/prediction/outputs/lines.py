"""The JSON line of an image: what was found in it, or why nothing could be."""

from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from dyhead_det.prediction.detections import Detections

Line = dict[str, Any]
# At which of the two an image failed.
Stage = Literal["read", "detect"]


@dataclass(slots=True)
class ImageResult:
    """An image on its way: read, then looked at; or the stage at which it failed, and the reason.

    pixels: (3, H, W) uint8, None where it could not be read.
    """

    name: str
    image_id: int
    pixels: Tensor | None = None
    detections: Detections | None = None
    failed_at: Stage | None = None
    reason: str = ""
    unwritten: dict[str, str] = field(default_factory=dict)

    def to_line(self) -> Line:
        """Return the image as a line of `predictions.jsonl`.

        Boxes are x, y, width, height in pixels; ids of classes are those of the training data.
        """
        line: Line = {"image_id": self.image_id, "file_name": self.name}
        if self.detections is None or self.pixels is None:
            return {**line, "failed_at": self.failed_at, "reason": self.reason}
        height, width = self.pixels.shape[1:]
        results = self.detections.to_coco(self.image_id)
        records = [
            {
                "category_id": result["category_id"],
                "category": name,
                "bbox": result["bbox"],
                "score": result["score"],
            }
            for result, name in zip(results, self.detections.names, strict=True)
        ]
        line |= {"width": width, "height": height, "detections": records}
        return {**line, "unwritten": self.unwritten} if self.unwritten else line
