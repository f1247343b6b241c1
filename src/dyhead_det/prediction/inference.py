"""One image after the other: read it, find objects in it; what goes wrong is part of the result."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from dyhead_det.data.images import read_image
from dyhead_det.errors import DatasetError
from dyhead_det.escaping import printable
from dyhead_det.prediction.options import PredictOptions
from dyhead_det.prediction.outputs.lines import ImageResult, Line
from dyhead_det.prediction.predictor import Predictor
from dyhead_det.prediction.sources.files import ImageSource

logger = logging.getLogger(__name__)


def predict_lines(
    predictor: Predictor, paths: Iterable[str], options: PredictOptions
) -> Iterator[Line]:
    """Find objects in images as their paths come, and yield the line of each before the next.

    Args:
        predictor: the detector.
        paths: of image files, one a line; empty lines are left out.
        options: what to keep of what is found; the batch size counts for nothing.
    """
    names = (path.rstrip("\r\n") for path in paths)
    for number, name in enumerate(filter(None, names), start=1):
        result = read_source(ImageSource(Path(name), Path(name)), number)
        detect([result], predictor, options)
        yield result.to_line()


def read_source(source: ImageSource, number: int) -> ImageResult:
    """Read one image, or note why it cannot be read.

    Args:
        source: where it lies.
        number: its id where the source has none of its own.
    """
    result = ImageResult(source.name, number if source.image_id is None else source.image_id)
    try:
        result.pixels = read_image(source.path, annotated_size=source.annotated_size)
    except DatasetError as error:
        result.failed_at, result.reason = "read", printable(error)
        logger.warning("skipped: %s", error)
    except Exception as error:  # such as MemoryError, or a decoder's that nobody foresaw
        result.failed_at, result.reason = "read", reason_of(error)
        logger.warning("skipped: %s cannot be read (%s)", source.path, result.reason)
        logger.debug("where it failed:", exc_info=error)
    return result


def detect(batch: Sequence[ImageResult], predictor: Predictor, options: PredictOptions) -> None:
    """Find objects in a batch; where that fails, in each image alone; note where it still does."""
    read = [result for result in batch if result.pixels is not None]
    try:
        all_detections = predictor.predict(
            [result.pixels for result in read if result.pixels is not None],
            min_score=options.min_score,
            classes=options.classes,
            max_detections=options.max_detections,
            batch_size=options.batch_size,
        )
    except Exception as error:  # whatever it is, it must not cost the other images
        if len(read) > 1:
            for one in read:
                detect([one], predictor, replace(options, batch_size=1))
            return
        read[0].failed_at, read[0].reason = "detect", reason_of(error)
        logger.warning("skipped: the detector fails in %s (%s)", read[0].name, read[0].reason)
        logger.debug("where it failed:", exc_info=error)
        return
    for result, detections in zip(read, all_detections, strict=True):
        result.detections = detections


def reason_of(error: Exception) -> str:
    """Return the kind of an error and what it says, as one line."""
    return printable(f"{type(error).__name__}: {error}", max_length=300)
