"""Find objects in files: images, folders and patterns in, drawings and COCO results out.

What one image, one picture or one file does wrong never costs the others: it is reported and left
out, and the exit code tells.
"""

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
from dyhead_det.distributed.stopping import StopRequested, graceful_shutdown
from dyhead_det.errors import DatasetError, OutputError, StoppedError
from dyhead_det.escaping import listed, printable
from dyhead_det.evaluation.evaluate import to_coco, write_json
from dyhead_det.files import remove_abandoned, require_writable, written_whole
from dyhead_det.prediction.arguments import (
    MAX_BATCH_SIZE,
    MAX_DETECTIONS,
    MinScore,
    require_count,
)
from dyhead_det.prediction.detections import Detections
from dyhead_det.prediction.predictor import Predictor
from dyhead_det.prediction.sources import ImageSource, find_images, picture_paths

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

RESULTS, PICTURES = "detections.json", "pictures"


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
    min_score: MinScore,
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
        out: the folder for the results, which is tried before any image is read.
        min_score: leave out what scores less; `auto` is as in `Predictor.predict`.
        classes: keep these classes only; empty means all.
        max_detections: keep so many per image, best first.
        batch_size: images that go through the detector together.
        draw: also draw each image with what was found.

    Raises:
        DatasetError: where a source holds no image; and at the end, when all else is written,
            where images could not be read or the detector failed in them.
        ConfigError: where a class is unknown, `auto` has no bounds, or nothing can be written to
            `out`.
        OutputError: at the end, where results or pictures could not be written.
        StoppedError: where a signal ended it; what was found by then is written.
        ValueError: where another argument is out of range.
    """
    predictor.labels_of(classes)  # a wrong name is reported before the first image is read
    require_count("batch_size", batch_size, most=MAX_BATCH_SIZE)
    predictor.score_bound(min_score)
    if max_detections is not None:
        require_count("max_detections", max_detections, most=MAX_DETECTIONS)
    images = find_images(sources, except_in=out / PICTURES)
    pictures = picture_paths(images, out / PICTURES) if draw else None
    require_writable(out, RESULTS)
    for folder in {path.parent for path in pictures or ()}:
        remove_abandoned(folder)
    run = _Run(images, pictures, out)
    stopped_by: StopRequested | None = None
    try:
        with graceful_shutdown() as stop:
            for batch in _batches(_read(run), batch_size):
                stop.check()
                for i, pixels, detections in _predict(
                    predictor, batch, run, min_score, tuple(classes), max_detections
                ):
                    run.records += _records(detections, i + 1, images[i].path, predictor)
                    run.num_done += 1
                    if pictures is not None:
                        _draw(detections, pixels, pictures[i], run)
    except StopRequested as request:
        stopped_by = request
    finally:  # whatever happened, hours of work are not lost
        _write_results(run)
    _raise_problems(run, stopped_by)
    return PredictSummary(len(images), len(run.records), out / RESULTS, tuple(run.drawn))


@dataclass(slots=True)
class _Run:
    """What is asked for and what is done so far; `unwritten` has the reasons."""

    images: Sequence[ImageSource]
    pictures: Sequence[Path] | None
    out: Path
    num_done: int = 0
    records: list[dict[str, object]] = field(default_factory=list)
    drawn: list[Path] = field(default_factory=list)
    unread: list[Path] = field(default_factory=list)
    failed: list[Path] = field(default_factory=list)
    unwritten: dict[Path, str] = field(default_factory=dict)


def _read(run: _Run) -> Iterator[tuple[int, Tensor]]:
    """Read one image after the other with a progress bar; note what cannot be read."""
    bar = tqdm(run.images, desc="predict", unit="image", leave=False, disable=None)
    for i, image in enumerate(bar):
        try:
            pixels = read_image(image.path)
        except DatasetError as error:
            logger.warning("skipped: %s", error)
            run.unread.append(image.path)
        except Exception as error:  # such as MemoryError, or a decoder's that nobody foresaw
            logger.warning("skipped: %s cannot be read (%s)", image.path, _reason(error))
            logger.debug("where it failed:", exc_info=error)
            run.unread.append(image.path)
        else:
            yield i, pixels


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def _predict(
    predictor: Predictor,
    batch: Sequence[tuple[int, Tensor]],
    run: _Run,
    min_score: MinScore,
    classes: Sequence[str],
    max_detections: int | None,
) -> Iterator[tuple[int, Tensor, Detections]]:
    """Find objects in a batch; where that fails in each image alone, and note where it still does.

    Yields:
        Position, pixels and detections of every image that passes through the detector.
    """
    try:
        all_detections = predictor.predict(
            [pixels for _, pixels in batch],
            min_score=min_score,
            classes=classes,
            max_detections=max_detections,
            batch_size=len(batch),
        )
    except Exception as error:  # whatever it is, it must not cost the other images
        if len(batch) > 1:
            for one in batch:
                yield from _predict(predictor, [one], run, min_score, classes, max_detections)
            return
        path = run.images[batch[0][0]].path
        logger.warning("skipped: the detector fails in %s (%s)", path, _reason(error))
        logger.debug("where it failed:", exc_info=error)
        run.failed.append(path)
        return
    for (i, pixels), detections in zip(batch, all_detections, strict=True):
        yield i, pixels, detections


def _reason(error: Exception) -> str:
    return printable(f"{type(error).__name__}: {error}", max_length=300)


def _draw(detections: Detections, pixels: Tensor, path: Path, run: _Run) -> None:
    """Draw a picture, whole or not at all; note where that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as unfinished:
            image_format = "JPEG" if path.suffix == ".jpg" else "PNG"
            detections.draw(pixels).save(unfinished, format=image_format, quality=92)
    except Exception as error:  # a full disk, a picture too large for its format, or unforeseen
        reason = (error.strerror if isinstance(error, OSError) else None) or _reason(error)
        logger.debug("where it failed:", exc_info=error)
        if not run.unwritten:
            logger.warning("%s: cannot be written (%s), others are tried", path, reason)
        run.unwritten[path] = reason
    else:
        run.drawn.append(path)


def _write_results(run: _Run) -> None:
    """Write the results of all images that are done; note where that fails."""
    path = run.out / RESULTS
    try:
        write_json(path, run.records, indent=None)
    except OSError as error:
        run.unwritten[path] = error.strerror or str(error)


def _raise_problems(run: _Run, stopped_by: StopRequested | None) -> None:
    """Raise what went wrong, if anything did, the gravest in the exit code.

    Raises:
        StoppedError: If a signal ended the run.
        OutputError: If something could not be written.
        DatasetError: If images could not be read or the detector failed in them.
    """
    num_images, results = len(run.images), run.out / RESULTS
    problems = []
    if results in run.unwritten:
        problems.append(
            f"{results}: cannot be written ({run.unwritten[results]}): {len(run.records)} objects "
            f"in {run.num_done} images are lost; make room, or give another folder by --out"
        )
    lost_pictures = [path for path in run.unwritten if path != results]
    if lost_pictures:
        problems.append(
            f"{len(lost_pictures)} of {run.num_done} pictures could not be written: "
            f"{listed(lost_pictures)} ({run.unwritten[lost_pictures[0]]})"
        )
    for verb, paths in {"be read": run.unread, "pass through the detector": run.failed}.items():
        if paths:
            problems.append(
                f"{len(paths)} of {num_images} images could not {verb}: {listed(paths)}"
            )
    if problems and run.num_done and results not in run.unwritten:
        problems[-1] += f"; what was found in the others is in {run.out}"
    if stopped_by is not None:
        ending = f"stopped by {stopped_by} after {run.num_done} of {num_images} images"
        if results not in run.unwritten:
            ending += f"; what was found in them is in {run.out}"
        raise StoppedError(ending, *problems, signal_number=stopped_by.signal_number)
    if run.unwritten:
        raise OutputError(*problems)
    if problems:
        raise DatasetError(*problems)


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
