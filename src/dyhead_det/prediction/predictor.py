"""Find objects with a trained detector: in what Python holds, and in folders of images."""

import itertools
import logging
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar, overload

import torch
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from dyhead_det.checkpoints.checkpoint import Checkpoint
from dyhead_det.config.precision import Amp
from dyhead_det.config.schema import RuntimeConfig
from dyhead_det.contracts import CategoryMap, Prediction
from dyhead_det.distributed.device import (
    images_to_device,
    predictions_to_host,
)
from dyhead_det.errors import ConfigError
from dyhead_det.escaping import listed
from dyhead_det.models.runtime import (
    prepare_detector,
    replace_triton_where_it_cannot_run,
    run_backbone_in,
)
from dyhead_det.prediction.arguments import (
    AUTO,
    MAX_BATCH_SIZE,
    MAX_DETECTIONS,
    MIN_SCORE,
    MinScore,
    Views,
    require_count,
    require_score,
)
from dyhead_det.prediction.detections import Detections, labels_of
from dyhead_det.prediction.images import ImageLike, as_image, reduce_large
from dyhead_det.prediction.rebuilding import rebuild_detector
from dyhead_det.prediction.views import Augmented, Tiles

AnyImage = TypeVar("AnyImage", bound=ImageLike)

logger = logging.getLogger(__name__)


class Predictor:
    """A trained detector with the names of its classes, on one device.

    Attributes:
        runtime: How the detector was trained to run; commands set PyTorch's switches by it.
        resized_to: Bounds of the shorter and the longer edge that the detector resizes images to;
            None where it does not.
        amp: The half precision that its backbone computes in, or `off`.
        views: In which ways it looks at an image.
        min_scores: Of each class the bound of the score for `min_score="auto"`; None without.
    """

    def __init__(
        self,
        detector: nn.Module,
        categories: CategoryMap,
        *,
        device: torch.device,
        runtime: RuntimeConfig | None = None,
        resized_to: tuple[int, int] | None = None,
        min_scores: Mapping[str, float] | None = None,
        amp: Amp = "off",
    ) -> None:
        self.detector = detector.to(device).eval()
        self.categories = categories
        self.device = device
        self.runtime = runtime or RuntimeConfig()
        self.resized_to = resized_to
        self.min_scores = min_scores
        self.amp = amp
        self.views = Views()
        self._tiles: Tiles | None = None
        if amp == "fp16" and device.type == "cpu":
            logger.warning("fp16 is several times slower than float32 on a CPU; take bf16")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of their labels."""
        return self.categories.names

    def __repr__(self) -> str:
        """Name detector, device and classes."""
        return f"<Predictor of {len(self.names)} classes on {self.device}: {listed(self.names)}>"

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        *,
        device: torch.device,
        short_edge: int | None,
        long_edge: int | None,
        amp: Amp = "off",
    ) -> "Predictor":
        """Build the detector of a checkpoint; the arguments and errors are those of `load`."""
        detector = rebuild_detector(checkpoint, short_edge=short_edge, long_edge=long_edge)
        # Compiling takes longer than most predictions, and this machine may have no compiler.
        runtime = checkpoint.config.runtime.model_copy(update={"compile": False})
        replace_triton_where_it_cannot_run(detector, device)
        prepare_detector(runtime, detector, device)
        run_backbone_in(amp, detector, device)
        return cls(
            detector,
            checkpoint.categories,
            device=device,
            runtime=runtime,
            resized_to=(detector.transform.min_size[-1], detector.transform.max_size),
            min_scores=checkpoint.min_scores,
            amp=amp,
        )

    def set_views(self, views: Views, *, nms_thresh: float, detections_per_img: int) -> None:
        """Look at images in more ways than once at the whole, from now on.

        Args:
            views: The ways.
            nms_thresh: IoU above which the weaker of two boxes of a class is dropped.
            detections_per_img: The most that is found in an image, or in each tile of it.
        """
        self.views = views
        if views.flip or views.scales:
            self.detector = Augmented(
                self.detector,
                flip=views.flip,
                scales=views.scales,
                nms_thresh=nms_thresh,
                detections_per_img=detections_per_img,
            ).eval()
        if views.tile is not None:
            self._tiles = Tiles(
                self._detect, size=views.tile, overlap=views.overlap, nms_thresh=nms_thresh
            )

    @overload
    def predict(
        self,
        images: ImageLike,
        *,
        min_score: MinScore = ...,
        classes: Sequence[str] = ...,
        max_detections: int | None = ...,
        batch_size: int = ...,
    ) -> Detections: ...

    @overload
    def predict(
        self,
        images: list[AnyImage] | tuple[AnyImage, ...],
        *,
        min_score: MinScore = ...,
        classes: Sequence[str] = ...,
        max_detections: int | None = ...,
        batch_size: int = ...,
    ) -> list[Detections]: ...

    def predict(
        self,
        images: ImageLike | list[AnyImage] | tuple[AnyImage, ...],
        *,
        min_score: MinScore = MIN_SCORE,
        classes: Sequence[str] = (),
        max_detections: int | None = None,
        batch_size: int = 1,
    ) -> Detections | list[Detections]:
        """Find objects in an image, or in each image of a list.

        Args:
            images: paths, PIL images, numpy arrays (H, W) or (H, W, 1|2|3|4), tensors (H, W) or
                (1|2|3|4, H, W), or a list of them. Values are bool, uint8, uint16, or floats in
                [0, 1]; color is RGB. The same picture gives the same boxes in all these forms.
            min_score: leave out what scores less; the detector has a lower bound of its own. `auto`
                is for each class the bound with the highest F1 in the validation of the run.
            classes: keep these classes only; empty means all.
            max_detections: keep so many per image, best first.
            batch_size: images, or tiles, that go through the detector together; padding to a common
                size makes results differ slightly from those of single images.

        Returns:
            What was found in the image; for a list, a list.

        Raises:
            ConfigError: where a class is unknown, or the checkpoint has no bounds for `auto`.
            DatasetError: where a file cannot be read.
            TypeError: where something is no image.
            ValueError: where an array is no image, or another argument is out of range.
        """
        bound = self.score_bound(min_score)
        require_count("batch_size", batch_size, most=MAX_BATCH_SIZE)
        if max_detections is not None:
            require_count("max_detections", max_detections, most=MAX_DETECTIONS)
        labels = self.labels_of(classes)
        remaining = iter(images if isinstance(images, list | tuple) else [images])
        detections: list[Detections] = []
        while batch := [as_image(image) for image in itertools.islice(remaining, batch_size)]:
            tiles = self._tiles
            predictions = tiles(batch, batch_size=batch_size) if tiles else self._detect(batch)
            for prediction in predictions:
                selected = _select(prediction, bound, labels, max_detections)
                detections.append(Detections.from_prediction(selected, self.categories))
        return detections if isinstance(images, list | tuple) else detections[0]

    def _detect(self, images: Sequence[Tensor]) -> Iterator[Prediction]:
        """Run the detector, large images made smaller; boxes are in pixels of the given ones."""
        reduced = [self._reduce(image) for image in images]
        with torch.no_grad():
            inputs = images_to_device([image for image, _ in reduced], self.device)
            predictions = predictions_to_host(self.detector(inputs))
        for image, (_, factor), prediction in zip(images, reduced, predictions, strict=True):
            if factor > 1:
                boxes = clip_boxes_to_image(prediction["boxes"] * factor, image.shape[1:])
                prediction = {**prediction, "boxes": boxes}
            yield prediction

    def _reduce(self, image: Tensor) -> tuple[Tensor, int]:
        """Make an image smaller, but not below the largest size that it is looked at."""
        if self.resized_to is None:
            return image, 1
        largest = math.ceil(max((1.0, *self.views.scales)))
        short_edge, long_edge = self.resized_to
        return reduce_large(image, (short_edge * largest, long_edge * largest))

    def score_bound(self, min_score: MinScore) -> float | Tensor:
        """Return the bound of all classes, or for `auto` that of each class, (K,).

        Raises:
            ConfigError: where there is none for `auto`.
            ValueError: where a number is out of range.
        """
        if min_score != AUTO:
            return require_score("min_score", min_score)
        if self.min_scores is None:
            raise ConfigError(
                "min_score auto: the checkpoint has no best bounds, as it was imported, never "
                "evaluated, found nothing right, or is of an older version; `dyhead-det eval` "
                "shows the best ones: give one as a number"
            )
        return torch.tensor([self.min_scores[name] for name in self.names])

    def fingerprint(self) -> str:
        """Return a short text that other weights or classes do not share."""
        crc = zlib.crc32(repr(self.categories.to_plain()).encode())
        for tensor in self.detector.state_dict().values():
            plain = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
            crc = zlib.crc32(plain.numpy().data, crc)
        return f"{crc:08x}"

    def labels_of(self, classes: Sequence[str]) -> list[int]:
        """Return the labels of class names; see `detections.labels_of`."""
        return labels_of(self.categories, classes)

    def split_classes(self, values: Iterable[str]) -> list[str]:
        """Take apart what was typed for classes; see `CategoryMap.split_names`."""
        return self.categories.split_names(values)


def _select(
    prediction: Prediction,
    bound: float | Tensor,
    labels: Sequence[int],
    max_detections: int | None,
) -> Prediction:
    of_class = bound[prediction["labels"]] if isinstance(bound, Tensor) else bound
    keep = prediction["scores"] >= of_class
    if labels:
        wanted = torch.tensor(labels, device=keep.device)
        keep &= torch.isin(prediction["labels"], wanted)
    kept = keep.nonzero().flatten()[:max_detections]
    return Prediction(
        boxes=prediction["boxes"][kept],
        scores=prediction["scores"][kept],
        labels=prediction["labels"][kept],
    )
