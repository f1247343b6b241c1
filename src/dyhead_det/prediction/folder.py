"""Find objects in files: images, folders and patterns in, drawings and COCO results out."""

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from dyhead_det.contracts import Prediction
from dyhead_det.data.images import read_image
from dyhead_det.distributed.stopping import StopRequested, StopSignals
from dyhead_det.errors import DatasetError, StoppedError
from dyhead_det.evaluation.evaluate import to_coco, write_json
from dyhead_det.files import not_writable
from dyhead_det.prediction.predictor import Detections, Predictor
from dyhead_det.prediction.sources import ImageSource, find_images, picture_paths

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

# How many broken images an error names; the log names all.
MAX_NAMED = 10


@dataclass(frozen=True, slots=True)
class PredictSummary:
    """What a run over files has left: COCO results in `results`, and the annotated pictures."""

    num_images: int
    num_detections: int
    results: Path
    pictures: tuple[Path, ...]


def predict_to_folder(
    predictor: Predictor,
    sources: Sequence[str | Path],
    out: Path,
    *,
    min_score: float,
    classes: Sequence[str],
    max_detections: int | None,
    batch_size: int,
    draw: bool,
) -> PredictSummary:
    """Find objects in image files; write `detections.json` and, below `pictures/`, drawings.

    `detections.json` holds COCO results with the category ids of the training data, and besides
    `file_name`, the path of the image, and `category`, the class name. `image_id` is the position
    among the images, from 1. Inputs are never overwritten; earlier results are.

    Args:
        predictor: the detector.
        sources: image files, folders (with everything below) and glob patterns.
        out: the folder for the results.
        min_score: leave out what scores less.
        classes: keep these classes only; empty means all.
        max_detections: keep so many per image, best first.
        batch_size: images that go through the detector together.
        draw: also draw each image with what was found.

    Raises:
        DatasetError: where a source holds no image; and at the end, when all else is written,
            where images could not be read.
        ConfigError: where a class is unknown, or `out` cannot be made.
        StoppedError: where a signal ended it; what was found by then is written.
    """
    predictor.labels_of(classes)  # a wrong name is told before the first image is read
    images = find_images(sources, except_in=out / "pictures")
    pictures = picture_paths(images, out / "pictures") if draw else None
    done = _Done()
    results = out / "detections.json"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_writable(out, error) from error
    try:
        with StopSignals() as stop:
            for batch in _batches(_read(images, done.broken), batch_size):
                stop.check()
                found = predictor.predict(
                    [pixels for _, pixels in batch],
                    min_score=min_score,
                    classes=classes,
                    max_detections=max_detections,
                    batch_size=batch_size,
                )
                for (i, pixels), detections in zip(batch, found, strict=True):
                    done.records += _records(detections, i + 1, images[i].path, predictor)
                    if pictures is not None:
                        _draw(detections, pixels, pictures[i])
                        done.pictures.append(pictures[i])
                    done.num_images += 1
    except StopRequested as request:
        msg = (
            f"stopped by {request} after {done.num_images} of {len(images)} images; what was "
            f"found in them is in {out}"
        )
        raise StoppedError(msg, signal_number=request.signal_number) from request
    finally:  # whatever happened, hours of finding are not lost
        write_json(results, done.records, indent=None)
    if done.broken:
        raise DatasetError(_complaint(done.broken, len(images), out))
    return PredictSummary(len(images), len(done.records), results, tuple(done.pictures))


@dataclass(slots=True)
class _Done:
    """What is found so far."""

    num_images: int = 0
    records: list[dict[str, object]] = field(default_factory=list)
    pictures: list[Path] = field(default_factory=list)
    broken: list[Path] = field(default_factory=list)


def _draw(detections: Detections, pixels: Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    detections.draw(pixels).save(path, quality=92)


def _read(images: Sequence[ImageSource], broken: list[Path]) -> Iterator[tuple[int, Tensor]]:
    """Read one image after the other with a progress bar; note what cannot be read."""
    bar = tqdm(images, desc="predict", unit="image", leave=False, disable=None)
    for i, image in enumerate(bar):
        try:
            pixels = read_image(image.path)
        except DatasetError as error:
            logger.warning("skipped: %s", error)
            broken.append(image.path)
        else:
            yield i, pixels


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def _complaint(broken: Sequence[Path], num_images: int, out: Path) -> str:
    named = ", ".join(map(str, broken[:MAX_NAMED]))
    more = f" and {len(broken) - MAX_NAMED} more" if len(broken) > MAX_NAMED else ""
    return (
        f"{len(broken)} of {num_images} images could not be read: {named}{more}; "
        f"what was found in the others is in {out}"
    )


def _records(
    detections: Detections, image_id: int, path: Path, predictor: Predictor
) -> list[dict[str, object]]:
    """Write detections as COCO results with the names that people look for."""
    prediction = Prediction(
        boxes=torch.from_numpy(detections.boxes),
        scores=torch.from_numpy(detections.scores),
        labels=torch.from_numpy(detections.labels),
    )
    return [
        {**result, "category": name, "file_name": path.as_posix()}
        for result, name in zip(
            to_coco(prediction, image_id, predictor.categories), detections.names, strict=True
        )
    ]
