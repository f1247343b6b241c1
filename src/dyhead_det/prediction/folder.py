"""Find objects in image files; write a journal while it goes, and tables of it at the end.

What one image, one picture or one file does wrong never costs the others: it is reported and left
out, and the exit code tells. Several processes share the batches; rank 0 writes the journal, in the
order of the images, so that the results are those of one process.
"""

import hashlib
import itertools
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from dyhead_det.distributed.agreement import require_agreement
from dyhead_det.distributed.collectives import (
    all_gather_numbers,
    barrier,
    broadcast_object,
    gather_objects,
)
from dyhead_det.distributed.rank_zero import main_only
from dyhead_det.distributed.stopping import StopRequested, StopSignals, graceful_shutdown
from dyhead_det.distributed.world import get_rank, get_world_size, is_main
from dyhead_det.errors import OutputError
from dyhead_det.escaping import printable
from dyhead_det.files import DISK_FULL, require_writable
from dyhead_det.prediction.arguments import AUTO
from dyhead_det.prediction.inference import detect, read_source, reason_of
from dyhead_det.prediction.options import DEFAULT_OUTPUTS, Output, PredictOptions
from dyhead_det.prediction.outputs.image_files import ImageWriter, build_image_writers
from dyhead_det.prediction.outputs.journal import (
    CALL,
    LINES,
    Call,
    Journal,
    count_lines,
    read_call,
    resume_journal,
    start_journal,
)
from dyhead_det.prediction.outputs.lines import ImageResult, Line
from dyhead_det.prediction.outputs.summary import PredictSummary, summarize, write_tables
from dyhead_det.prediction.outputs.tables import DETECTIONS, IMAGES, TABLE
from dyhead_det.prediction.predictor import Predictor
from dyhead_det.prediction.sources.files import ImageSource
from dyhead_det.prediction.thread_pool import batched, map_ahead, thread_pool

logger = logging.getLogger(__name__)

_MOST_DEFAULT_WORKERS = 4


def predict_to_folder(
    predictor: Predictor,
    images: Sequence[ImageSource],
    out: Path,
    *,
    options: PredictOptions,
    outputs: Sequence[Output] = DEFAULT_OUTPUTS,
    num_workers: int = 0,
    resume: bool = False,
) -> PredictSummary:
    """Find objects in image files and write what is asked for into a folder.

    `predictions.jsonl` has a line per image and grows with every image. Pictures, labels and crops
    are written beside it; `detections.json`, `images.json` and `detections.csv` at the end, from
    it. Inputs are never overwritten; earlier results are.

    Args:
        predictor: the detector.
        images: where to look, such as `find_images` gives.
        out: the folder for the results, which is tried before any image is read.
        options: what to keep of what is found.
        outputs: what to write besides `predictions.jsonl`.
        num_workers: threads that read and draw beside the detector; 0 for none. It changes no
            result.
        resume: go on behind the last image of a run that was stopped or killed.

    Raises:
        DatasetError: at the end, when all else is written, where images could not be read or the
            detector failed in them.
        ConfigError: where a class is unknown, `auto` has no bounds, nothing can be written to
            `out`, or the run to resume was another.
        OutputError: where the disk is full, and at the end where pictures could not be written.
        StoppedError: where a signal ended it; what was found by then is written.
    """
    predictor.labels_of(options.classes)
    predictor.score_bound(options.min_score)
    call = {**call_of(predictor, options, outputs), **_names_of(images)}
    require_agreement({"results": call})
    main_only(require_writable)(out, LINES, CALL, DETECTIONS, IMAGES, TABLE)
    barrier()
    run = _Run(predictor, images, out, options, outputs, num_workers)
    num_done = broadcast_object(partial(_begin, run, call, resume=resume))
    stopped_by: StopRequested | None = None
    # Reading images changes the filters for a while, in several threads; here they are put back.
    with warnings.catch_warnings(), graceful_shutdown() as stop:
        try:
            _predict_all(run, num_done, stop)
        except StopRequested as request:
            stopped_by = request
        except OSError as error:
            raise no_room(error, out) from error
    return _finish(run, stopped_by)


def default_workers() -> int:
    """Return how many threads shall read and draw: more than a few wait for the detector."""
    return min(_MOST_DEFAULT_WORKERS, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class _Run:
    """What is asked for."""

    predictor: Predictor
    images: Sequence[ImageSource]
    out: Path
    options: PredictOptions
    outputs: Sequence[Output]
    num_workers: int


def call_of(
    predictor: Predictor, options: PredictOptions, outputs: Sequence[Output]
) -> dict[str, object]:
    """Return all but the images that results depend on, by names that people know."""
    return {
        "weights": predictor.fingerprint(),
        "resized to": predictor.resized_to,
        "amp": predictor.amp,
        **predictor.views.to_call(),
        **{name.replace("_", " "): value for name, value in asdict(options).items()},
        "min score": predictor.min_scores if options.min_score == AUTO else options.min_score,
        "save": sorted(outputs),
    }


def _names_of(images: Sequence[ImageSource]) -> dict[str, object]:
    digest = hashlib.sha256()
    for image in images:
        digest.update(f"{image.image_id}\0{image.name}\0".encode("utf-8", "surrogateescape"))
    return {"images": len(images), "names of images": digest.hexdigest()[:16]}


def _begin(run: _Run, call: Call, *, resume: bool) -> int:
    """Make the journal ready; return how many images are done."""
    try:
        if resume:
            num_done = resume_journal(
                run.out,
                call,
                batch_size=run.options.batch_size,
                fits=lambda i, line: line.get("file_name") == run.images[i].name,
            )
            if num_done is not None:
                logger.info("goes on after %d of %d images", num_done, len(run.images))
                return num_done
            logger.info("%s: nothing to go on with; starts with the first image", run.out)
        else:
            num_lines, earlier = count_lines(run.out), read_call(run.out)
            if earlier is not None and num_lines < earlier.get("images", 0):
                logger.info(
                    "%s: a run that ended after %d of %d images is replaced; --resume would have "
                    "gone on with it",
                    *(run.out, num_lines, earlier["images"]),
                )
        for name in (DETECTIONS, IMAGES, TABLE):  # they would be those of other lines
            (run.out / name).unlink(missing_ok=True)
        start_journal(run.out, call)
    except OSError as error:
        raise no_room(error, run.out) from error
    return 0


def _predict_all(run: _Run, num_done: int, stop: StopSignals) -> None:
    """Predict what is left, a batch per rank at a time, and note it in the journal."""
    size, world_size = run.options.batch_size, get_world_size()
    positions = range(num_done, len(run.images))
    batches = [positions[i : i + size] for i in range(0, len(positions), size)]
    own = itertools.chain.from_iterable(batches[get_rank() :: world_size])
    with ExitStack() as stack:
        pool = stack.enter_context(thread_pool(run.num_workers))
        journal = stack.enter_context(Journal(run.out)) if is_main() else None
        lines = batched(_lines(run, own, pool), size)
        bar = tqdm(
            total=len(run.images),
            initial=num_done,
            desc="predict",
            unit="image",
            leave=False,
            disable=None if is_main() else True,
        )
        stack.enter_context(bar)
        for _ in range(0, len(batches), world_size):
            _stop_together(stop)
            of_all = gather_objects(next(lines, []))
            if journal is not None:
                journal.append(of_all)
            bar.update(len(of_all))


def _stop_together(stop: StopSignals) -> None:
    """Raise `StopRequested` on all ranks if a signal has come to one of them."""
    stop.check_workers()
    received = max(number for (number,) in all_gather_numbers(stop.received or 0))
    if received:
        raise StopRequested(received)


def _lines(run: _Run, positions: Iterator[int], pool: ThreadPoolExecutor | None) -> Iterator[Line]:
    """Read, look and write, each beside the others; yield a line per image, in order."""
    writers = build_image_writers(run.outputs, run.images, run.out, run.predictor.categories)
    size, num_ahead = run.options.batch_size, 2 * run.num_workers
    read = map_ahead(partial(_read, run.images), positions, pool, num_ahead=size + num_ahead)
    detected = (
        result
        for batch in batched(read, size)
        for result in _detect(run.predictor, batch, run.options)
    )
    written = map_ahead(partial(_write, writers), detected, pool, num_ahead=num_ahead)
    return (result.to_line() for result in written)


def _read(images: Sequence[ImageSource], position: int) -> tuple[int, ImageResult]:
    return position, read_source(images[position], position + 1)


def _detect(
    predictor: Predictor, batch: Sequence[tuple[int, ImageResult]], options: PredictOptions
) -> Sequence[tuple[int, ImageResult]]:
    detect([result for _, result in batch], predictor, options)
    return batch


def _write(writers: Mapping[str, ImageWriter], item: tuple[int, ImageResult]) -> ImageResult:
    """Write the files of one image; note those that cannot be written.

    Raises:
        OSError: Where the disk is full, which costs all that follow.
    """
    position, result = item
    if result.pixels is None or result.detections is None:
        return result
    for folder, write in writers.items():
        try:
            write(position, result.pixels, result.detections)
        except Exception as error:  # a picture too large for its format, a name that is taken, ...
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                raise
            reason = (error.strerror if isinstance(error, OSError) else None) or reason_of(error)
            logger.debug("where it failed:", exc_info=error)
            result.unwritten[folder] = printable(reason)
    return result


def no_room(
    error: OSError, out: Path, *, then: str = "make room and go on with --resume"
) -> OutputError:
    """Say what is left of a run that cannot write any more."""
    num_done = count_lines(out)
    return OutputError(
        f"{error.filename or out}: cannot be written ({error.strerror}); what was found in "
        f"{num_done} images is in {out / LINES}; {then}"
    )


def _finish(run: _Run, stopped_by: StopRequested | None) -> PredictSummary:
    """Make the tables of what is done, and raise what went wrong, the gravest in the exit code."""

    def finish() -> PredictSummary:
        try:
            write_tables(run.out, run.outputs, run.predictor.categories)
        except OSError as error:
            raise no_room(error, run.out) from error
        return summarize(run.out, len(run.images))

    summary = broadcast_object(finish)
    if is_main() or stopped_by is not None:  # what concerns all, one rank reports
        summary.raise_problems(stopped_by)
    return summary
