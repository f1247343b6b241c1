"""What a detector found in one image, for people: a sequence of objects that draws itself."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dyhead_det.config.schema import did_you_mean
from dyhead_det.contracts import CategoryMap, Prediction
from dyhead_det.errors import ConfigError
from dyhead_det.escaping import listed, printable
from dyhead_det.evaluation.evaluate import to_coco
from dyhead_det.evaluation.ground_truth import CocoResult
from dyhead_det.prediction.arguments import require_score
from dyhead_det.prediction.images import ImageLike, as_image, as_uint8
from dyhead_det.visualize.draw import draw_detections

if TYPE_CHECKING:
    import supervision

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
    [0, 1]; labels: (N,) int64 in 0..K-1; categories: the K classes of the detector.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    categories: CategoryMap

    @classmethod
    def from_prediction(cls, prediction: Prediction, categories: CategoryMap) -> "Detections":
        """Bring a prediction to the CPU."""
        return cls(
            boxes=prediction["boxes"].cpu().numpy(),
            scores=prediction["scores"].cpu().numpy(),
            labels=prediction["labels"].cpu().numpy(),
            categories=categories,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The class names of the N objects."""
        return tuple(self.categories[label].name for label in self.labels.tolist())

    def __len__(self) -> int:
        return len(self.labels)

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
            i, label = int(positions), int(self.labels[positions])
            left, top, right, bottom = self.boxes[i].tolist()
            box = (left, top, right, bottom)
            return Detection(self.categories[label].name, float(self.scores[i]), box, label)
        return Detections(
            self.boxes[positions], self.scores[positions], self.labels[positions], self.categories
        )

    def __repr__(self) -> str:
        """Name the best ones with their scores."""
        best = [f"{printable(each.name)} {each.score:.2f}" for each in self[:_NUM_SHOWN]]
        more = [f"and {len(self) - _NUM_SHOWN} more"] if len(self) > _NUM_SHOWN else []
        return f"<{len(self)} detections{': ' if best else ''}{', '.join(best + more)}>"

    def filter(self, *, classes: Sequence[str] = (), min_score: float = 0.0) -> "Detections":
        """Return those of some classes, empty meaning all, that score so much at least.

        Raises:
            ConfigError: where a class is unknown.
            ValueError: where the score is none.
        """
        require_score("min_score", min_score)
        is_kept = self.scores >= min_score
        labels = labels_of(self.categories, classes)
        return self[is_kept & np.isin(self.labels, labels) if labels else is_kept]

    def to_dict(self) -> dict[str, list[Any]]:
        """Return plain lists, as JSON holds them: boxes (xyxy), scores, labels and names."""
        return {
            "boxes": self.boxes.tolist(),
            "scores": self.scores.tolist(),
            "labels": self.labels.tolist(),
            "names": list(self.names),
        }

    def to_coco(self, image_id: int) -> list[CocoResult]:
        """Return COCO results: xywh, and the category ids of the data the detector learned from.

        Args:
            image_id: What the results call the image.
        """
        boxes, scores, labels = map(torch.from_numpy, (self.boxes, self.scores, self.labels))
        prediction = Prediction(boxes=boxes, scores=scores, labels=labels)
        return to_coco(prediction, image_id, self.categories)

    def to_supervision(self) -> "supervision.Detections":
        """Return them for the package supervision, with its field `class_name`.

        Raises:
            ModuleNotFoundError: where supervision is not installed.
        """
        try:
            import supervision  # noqa: PLC0415 - not needed otherwise
        except ImportError as error:
            msg = f"supervision cannot be imported ({error}); `pip install supervision`"
            raise ModuleNotFoundError(msg) from error
        return supervision.Detections(
            xyxy=self.boxes,
            confidence=self.scores,
            class_id=self.labels,
            data={"class_name": np.array(self.names, dtype=np.str_)},
        )

    def draw(self, image: ImageLike) -> Image.Image:
        """Return a picture of the image with these boxes; small images come back enlarged.

        Args:
            image: The one that was given to `predict`, in any of its forms.
        """
        pixels = as_uint8(as_image(image))
        names = self.categories.names
        return draw_detections(pixels, self.boxes, self.labels, self.scores, names)


def labels_of(categories: CategoryMap, classes: Sequence[str]) -> list[int]:
    """Return the labels of class names; a single name may stand for a list of one.

    Raises:
        ConfigError: where a name is unknown.
    """
    names = [classes] if isinstance(classes, str) else classes
    for name in names:
        if name not in categories.label_of_name:
            raise ConfigError(
                f"unknown class {name!r}: {did_you_mean(name, categories.names)}"
                f"the detector knows {listed(categories.names, max_named=100)}"
            )
    return [categories.label_of_name[name] for name in names]
