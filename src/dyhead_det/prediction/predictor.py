"""Find objects with a trained detector: in what Python holds, and in folders of images."""

import itertools
import logging
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, overload

import torch
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from dyhead_det.checkpoints.checkpoint import Checkpoint, load_checkpoint
from dyhead_det.checkpoints.consistency import require_consistent
from dyhead_det.checkpoints.state_dicts import load_exactly, require_exact
from dyhead_det.config.schema import InputConfig, RuntimeConfig
from dyhead_det.contracts import CategoryMap, Prediction
from dyhead_det.distributed.device import (
    choose_device,
    images_to_device,
    predictions_to_host,
)
from dyhead_det.errors import ConfigError
from dyhead_det.escaping import listed
from dyhead_det.models.detectors import Detector, build_detector
from dyhead_det.models.runtime import prepare_detector, run_backbone_in
from dyhead_det.prediction.arguments import (
    AUTO,
    MAX_BATCH_SIZE,
    MAX_DETECTIONS,
    MAX_EDGE,
    MIN_SCORE,
    Amp,
    MinScore,
    require_amp,
    require_count,
    require_edges,
    require_score,
)
from dyhead_det.prediction.detections import Detections, labels_of
from dyhead_det.prediction.images import ImageLike, as_image, reduce_large
from dyhead_det.prediction.onnx_detector import is_onnx, load_onnx

logger = logging.getLogger(__name__)

AnyImage = TypeVar("AnyImage", bound=ImageLike)

logger = logging.getLogger(__name__)


def load(
    path: str | os.PathLike[str],
    *,
    device: str = "auto",
    short_edge: int | None = None,
    long_edge: int | None = None,
    amp: Amp = "off",
) -> "Predictor":
    """Load a trained detector.

    Args:
        path: a checkpoint, `best.pt` or `last.pt` of a run, or a file that `export` made of one.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        short_edge: resize images to this shorter edge in pixels; None as in training.
        long_edge: bound of the longer edge. Where only one of the two is given, the other is
            scaled with it.
        amp: compute backbone and DyHead in half precision, `bf16` or `fp16`: faster on a GPU, and
            `bf16` on a CPU that has instructions for it.

    Raises:
        CheckpointError: where the file is missing, damaged or of another kind.
        ConfigError: where the device is not there, or the shorter edge is the longer.
        ValueError: where an edge is no number of pixels.
    """
    require_edges(short_edge, long_edge)  # before a large file is read
    require_amp(amp)
    _, predictor = load_file(
        Path(path),
        device=choose_device(device),
        short_edge=short_edge,
        long_edge=long_edge,
        amp=amp,
    )
    return predictor


def load_file(
    path: Path, *, device: torch.device, short_edge: int | None, long_edge: int | None, amp: Amp
) -> tuple[Checkpoint, "Predictor"]:
    """Load a checkpoint or an ONNX file made of one; arguments and errors are those of `load`.

    Returns:
        What the file tells (an ONNX file all but weights), and its detector at work.
    """
    if not is_onnx(path):
        checkpoint = load_checkpoint(path)
        return checkpoint, Predictor.from_checkpoint(
            checkpoint, device=device, short_edge=short_edge, long_edge=long_edge, amp=amp
        )
    if amp != "off":
        raise ConfigError(
            f"{path}: an ONNX file computes in the precision that it was exported in: no --amp"
        )
    checkpoint, detector = load_onnx(path, short_edge=short_edge, long_edge=long_edge)
    if device.type != "cpu":
        logger.warning("%s runs on the CPU, whatever --device says", path)
    size = checkpoint.config.model.input
    return checkpoint, Predictor(
        detector,
        checkpoint.categories,
        device=torch.device("cpu"),
        runtime=checkpoint.config.runtime,
        resized_to=(size.short_edge, size.long_edge),
        min_scores=checkpoint.min_scores,
    )


class Predictor:
    """A trained detector with the names of its classes, on one device.

    Attributes:
        runtime: How the detector was trained to run; commands set PyTorch's switches by it.
        resized_to: Bounds of the shorter and the longer edge that the detector resizes images to;
            None where it does not.
        amp: The half precision that its backbone computes in, or `off`.
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
            batch_size: images that go through the detector together; padding to a common size
                makes results differ slightly from those of single images.

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
            for prediction in self._detect(batch):
                selected = _select(prediction, bound, labels, max_detections)
                detections.append(Detections.from_prediction(selected, self.categories))
        return detections if isinstance(images, list | tuple) else detections[0]

    def _detect(self, images: Sequence[Tensor]) -> Iterator[Prediction]:
        """Run the detector, large images made smaller; boxes are in pixels of the given ones."""
        reduced = [
            (image, 1) if self.resized_to is None else reduce_large(image, self.resized_to)
            for image in images
        ]
        with torch.no_grad():
            inputs = images_to_device([image for image, _ in reduced], self.device)
            predictions = predictions_to_host(self.detector(inputs))
        for image, (_, factor), prediction in zip(images, reduced, predictions, strict=True):
            if factor > 1:
                boxes = clip_boxes_to_image(prediction["boxes"] * factor, image.shape[1:])
                prediction = {**prediction, "boxes": boxes}
            yield prediction

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


def rebuild_detector(
    checkpoint: Checkpoint, *, short_edge: int | None, long_edge: int | None
) -> Detector:
    """Build the detector of a checkpoint on the CPU; arguments and errors are those of `load`."""
    model, num_classes = checkpoint.config.model, len(checkpoint.categories)
    require_consistent(checkpoint, source=checkpoint.source)
    if model.backbone.name.startswith("timm/"):  # which has models of any size
        with torch.device("meta"):
            planned = build_detector(model, num_classes=num_classes, load_backbone_weights=False)
        require_exact(checkpoint.model, planned.state_dict(), source=checkpoint.source)
    detector = build_detector(model, num_classes=num_classes, load_backbone_weights=False)
    load_exactly(detector, checkpoint.model, source=checkpoint.source)
    short, long = _test_size(checkpoint.config.model.input, short_edge, long_edge)
    detector.set_test_size(short_edge=short, long_edge=long)
    return detector


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


def _test_size(
    training: InputConfig, short_edge: int | None, long_edge: int | None
) -> tuple[int, int]:
    """Complete the size that was asked for; a lone edge keeps the proportion of training.

    Raises:
        ConfigError: where the shorter edge is the longer.
        ValueError: where an edge is no number of pixels.
    """
    require_edges(short_edge, long_edge)
    if short_edge is None and long_edge is None:
        return training.short_edge, training.long_edge
    proportion = training.long_edge / training.short_edge
    short_edge = short_edge or max(1, round((long_edge or 1) / proportion))
    long_edge = long_edge or min(MAX_EDGE, round(short_edge * proportion))
    if short_edge > long_edge:
        raise ConfigError(f"short edge {short_edge} is longer than long edge {long_edge}")
    return short_edge, long_edge
