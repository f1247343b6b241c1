"""Find objects with a trained detector: in what Python holds, and in folders of images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from dyhead_det.checkpoints.checkpoint import Checkpoint, load_checkpoint
from dyhead_det.config.schema import InputConfig, RuntimeConfig, did_you_mean
from dyhead_det.contracts import CategoryMap, Prediction
from dyhead_det.distributed.device import choose_device, images_to_device
from dyhead_det.errors import CheckpointError, ConfigError
from dyhead_det.models.detectors import Detector, build_detector
from dyhead_det.models.runtime import prepare_detector
from dyhead_det.prediction.images import ImageLike, as_image
from dyhead_det.visualize.draw import draw_detections

AnyImage = TypeVar("AnyImage", bound=ImageLike)


class Detection(NamedTuple):
    """One object: `box` is xyxy in pixels of the image that was given."""

    name: str
    score: float
    box: tuple[float, float, float, float]
    label: int


@dataclass(frozen=True, eq=False, slots=True)
class Detections:
    """What was found in one image, best first; iterate over it for one object at a time.

    boxes: (N, 4) float32 xyxy in pixels of the image that was given; scores: (N,) float32 in
    [0, 1]; labels: (N,) int64 in 0..K-1; names: N class names.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Detection]:
        for name, score, box, label in zip(
            self.names, self.scores.tolist(), self.boxes.tolist(), self.labels.tolist(), strict=True
        ):
            yield Detection(name, score, tuple(box), label)

    def draw(self, image: ImageLike) -> Image.Image:
        """Return a picture of the image with these boxes; small images come back enlarged."""
        pixels = as_image(image)
        if pixels.dtype != torch.uint8:
            pixels = (pixels * 255).round().to(torch.uint8)
        names = dict(zip(self.labels.tolist(), self.names, strict=True))
        return draw_detections(pixels, self.boxes, self.labels, self.scores, names)


def load(
    path: str | Path,
    *,
    device: str = "auto",
    short_edge: int | None = None,
    long_edge: int | None = None,
) -> "Predictor":
    """Load a trained detector.

    Args:
        path: a checkpoint, `best.pt` or `last.pt` of a run.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        short_edge: resize images to this shorter edge in pixels; None as in training.
        long_edge: bound of the longer edge. Where only one of the two is given, the other is
            scaled with it.

    Raises:
        CheckpointError: where the file is missing, damaged or of another kind.
        ConfigError: where the device is not there.
    """
    return Predictor.from_checkpoint(
        load_checkpoint(Path(path)),
        device=choose_device(device),
        short_edge=short_edge,
        long_edge=long_edge,
    )


class Predictor:
    """A trained detector with the names of its classes, on one device.

    Attributes:
        runtime: How the detector was trained to run; commands set PyTorch's switches by it.
    """

    def __init__(
        self,
        detector: nn.Module,
        categories: CategoryMap,
        *,
        device: torch.device,
        runtime: RuntimeConfig | None = None,
    ) -> None:
        self.detector = detector.to(device).eval()
        self.categories = categories
        self.device = device
        self.runtime = runtime or RuntimeConfig()

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        *,
        device: torch.device,
        short_edge: int | None,
        long_edge: int | None,
    ) -> "Predictor":
        """Build the detector of a checkpoint; the arguments and errors are those of `load`."""
        detector = rebuild_detector(checkpoint, short_edge=short_edge, long_edge=long_edge)
        # Compiling takes longer than most predictions, and this machine may have no compiler.
        runtime = checkpoint.config.runtime.model_copy(update={"compile": False})
        prepare_detector(runtime, detector, device)
        return cls(detector, checkpoint.categories, device=device, runtime=runtime)

    @overload
    def predict(
        self,
        images: ImageLike,
        *,
        min_score: float = ...,
        classes: Sequence[str] = ...,
        max_detections: int | None = ...,
        batch_size: int = ...,
    ) -> Detections: ...

    @overload
    def predict(
        self,
        images: list[AnyImage] | tuple[AnyImage, ...],
        *,
        min_score: float = ...,
        classes: Sequence[str] = ...,
        max_detections: int | None = ...,
        batch_size: int = ...,
    ) -> list[Detections]: ...

    def predict(
        self,
        images: ImageLike | list[AnyImage] | tuple[AnyImage, ...],
        *,
        min_score: float = 0.0,
        classes: Sequence[str] = (),
        max_detections: int | None = None,
        batch_size: int = 1,
    ) -> Detections | list[Detections]:
        """Find objects in an image, or in each image of a list.

        Args:
            images: paths, PIL images, numpy arrays (H, W), (H, W, 1|3|4), tensors (H, W),
                (1|3, H, W); values are uint8, or floats in [0, 1]; color is RGB.
            min_score: leave out what scores less; the detector has a lower bound of its own.
            classes: keep these classes only; empty means all.
            max_detections: keep so many per image, best first.
            batch_size: images that go through the detector together; padding to a common size
                makes results differ slightly from those of single images.

        Raises:
            ConfigError: where a class is unknown.
            DatasetError: where a file cannot be read.
            ValueError: where an array is no image.
        """
        labels = self.labels_of(classes)
        if not isinstance(images, list | tuple):
            return self.predict(
                [images], min_score=min_score, classes=classes, max_detections=max_detections
            )[0]
        found: list[Detections] = []
        for start in range(0, len(images), batch_size):
            batch = [as_image(image) for image in images[start : start + batch_size]]
            with torch.no_grad():
                predictions = self.detector(images_to_device(batch, self.device))
            for prediction in predictions:
                selected = _select(prediction, min_score, labels, max_detections)
                found.append(self._with_names(selected))
        return found

    def labels_of(self, classes: Sequence[str]) -> list[int]:
        """Return the labels of class names.

        Raises:
            ConfigError: where a name is unknown.
        """
        for name in classes:
            if name not in self.categories.label_of_name:
                raise ConfigError(
                    f"unknown class {name!r}: {did_you_mean(name, self.categories.names)}"
                    f"the detector knows {', '.join(self.categories.names)}"
                )
        return [self.categories.label_of_name[name] for name in classes]

    def _with_names(self, prediction: Prediction) -> Detections:
        labels = prediction["labels"].cpu().numpy()
        return Detections(
            boxes=prediction["boxes"].cpu().numpy(),
            scores=prediction["scores"].cpu().numpy(),
            labels=labels,
            names=tuple(self.categories[label].name for label in labels.tolist()),
        )


def rebuild_detector(
    checkpoint: Checkpoint, *, short_edge: int | None, long_edge: int | None
) -> Detector:
    """Build the detector of a checkpoint on the CPU; arguments and errors are those of `load`."""
    detector = build_detector(
        checkpoint.config.model,
        num_classes=len(checkpoint.categories),
        load_backbone_weights=False,
    )
    try:
        detector.load_state_dict(checkpoint.model)
    except RuntimeError as error:
        raise CheckpointError(
            f"the weights do not fit the model that the checkpoint describes: {error}"
        ) from error
    short, long = _test_size(checkpoint.config.model.input, short_edge, long_edge)
    detector.set_test_size(short_edge=short, long_edge=long)
    return detector


def _select(
    prediction: Prediction, min_score: float, labels: Sequence[int], max_detections: int | None
) -> Prediction:
    keep = prediction["scores"] >= min_score
    if labels:
        wanted = torch.tensor(labels, device=keep.device)
        keep &= torch.isin(prediction["labels"], wanted)
    kept = keep.nonzero().flatten()[:max_detections]
    return Prediction(
        boxes=prediction["boxes"][kept],
        scores=prediction["scores"][kept],
        labels=prediction["labels"][kept],
    )


def _test_size(
    training: InputConfig, short_edge: int | None, long_edge: int | None
) -> tuple[int, int]:
    """Complete the size that was asked for; a lone edge keeps the proportion of training.

    Raises:
        ConfigError: where the shorter edge is the longer.
    """
    if short_edge is None and long_edge is None:
        return training.short_edge, training.long_edge
    proportion = training.long_edge / training.short_edge
    short_edge = short_edge or round((long_edge or 0) / proportion)
    long_edge = long_edge or round(short_edge * proportion)
    if short_edge > long_edge:
        raise ConfigError(f"short edge {short_edge} is longer than long edge {long_edge}")
    return short_edge, long_edge
