"""What a detector found in one image, for people: a sequence of objects that draws itself."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dyhead_det.contracts import CategoryMap, Prediction
from dyhead_det.escaping import printable
from dyhead_det.prediction.images import ImageLike, as_image
from dyhead_det.visualize.draw import draw_detections

# How many objects `repr` shows.
_NUM_SHOWN = 5


class Detection(NamedTuple):
    """One object.

    name: of its class; score: in [0, 1]; box: xyxy in pixels of the image that was given; label:
    the number of its class, 0..K-1.
    """

    name: str
    score: float
    box: tuple[float, float, float, float]
    label: int


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Detections(Sequence[Detection]):
    """The objects found in one image, best first.

    ``detections[0]`` is the best one, a `Detection`; ``detections[:5]``, a mask such as
    ``detections[detections.scores > 0.9]`` and a list of positions give `Detections` again.

    boxes: (N, 4) float32 xyxy in pixels of the image that was given; scores: (N,) float32 in
    [0, 1]; labels: (N,) int64 in 0..K-1; names: N class names.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: tuple[str, ...]

    @classmethod
    def from_prediction(cls, prediction: Prediction, categories: CategoryMap) -> "Detections":
        """Bring a prediction to the CPU and name its classes."""
        labels = prediction["labels"].cpu().numpy()
        return cls(
            boxes=prediction["boxes"].cpu().numpy(),
            scores=prediction["scores"].cpu().numpy(),
            labels=labels,
            names=tuple(categories[label].name for label in labels.tolist()),
        )

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Detection]:
        for name, score, box, label in zip(
            self.names, self.scores.tolist(), self.boxes.tolist(), self.labels.tolist(), strict=True
        ):
            yield Detection(name, score, tuple(box), label)

    @overload
    def __getitem__(self, which: int | np.integer) -> Detection: ...

    @overload
    def __getitem__(
        self, which: slice | Sequence[int] | NDArray[np.integer | np.bool_]
    ) -> "Detections": ...

    def __getitem__(
        self, which: int | np.integer | slice | Sequence[int] | NDArray[np.integer | np.bool_]
    ) -> "Detection | Detections":
        positions = np.arange(len(self))[which]
        if positions.ndim == 0:
            i = int(positions)
            left, top, right, bottom = self.boxes[i].tolist()
            box = (left, top, right, bottom)
            return Detection(self.names[i], float(self.scores[i]), box, int(self.labels[i]))
        names = tuple(self.names[i] for i in positions.tolist())
        return Detections(
            self.boxes[positions], self.scores[positions], self.labels[positions], names
        )

    def __repr__(self) -> str:
        """Name the best ones with their scores."""
        best = [f"{printable(each.name)} {each.score:.2f}" for each in self[:_NUM_SHOWN]]
        more = [f"and {len(self) - _NUM_SHOWN} more"] if len(self) > _NUM_SHOWN else []
        return f"<{len(self)} detections{': ' if best else ''}{', '.join(best + more)}>"

    def draw(self, image: ImageLike) -> Image.Image:
        """Return a picture of the image with these boxes; small images come back enlarged.

        Args:
            image: The one that was given to `predict`, in any of its forms.
        """
        pixels = as_image(image)
        if pixels.dtype != torch.uint8:
            pixels = (pixels * 255).round().to(torch.uint8)
        names = dict(zip(self.labels.tolist(), self.names, strict=True))
        return draw_detections(pixels, self.boxes, self.labels, self.scores, names)
