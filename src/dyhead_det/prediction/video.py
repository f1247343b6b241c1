"""Find objects in videos, cameras and streams; write the video with boxes, and a line per frame."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dyhead_det.distributed.stopping import StopRequested, StopSignals, graceful_shutdown
from dyhead_det.distributed.world import get_world_size
from dyhead_det.errors import ConfigError, DatasetError, StoppedError
from dyhead_det.escaping import listed, without_passwords
from dyhead_det.files import require_writable
from dyhead_det.prediction.folder import call_of, no_room
from dyhead_det.prediction.inference import detect
from dyhead_det.prediction.options import Output, PredictOptions
from dyhead_det.prediction.outputs.journal import CALL, LINES, Journal, start_journal
from dyhead_det.prediction.outputs.lines import ImageResult
from dyhead_det.prediction.outputs.summary import PredictSummary, summarize, write_tables
from dyhead_det.prediction.outputs.tables import DETECTIONS, IMAGES, TABLE
from dyhead_det.prediction.outputs.video_file import VideoWriter, video_suffix, video_written
from dyhead_det.prediction.predictor import Predictor
from dyhead_det.prediction.sources.videos import Frame, Video, open_video
from dyhead_det.prediction.thread_pool import batched, map_ahead, thread_pool

logger = logging.getLogger(__name__)

VIDEOS = "videos"
# What is written of videos; the other outputs are files of single images.
VIDEO_OUTPUTS: tuple[Output, ...] = ("pictures", "json", "csv")


def predict_videos(
    predictor: Predictor,
    sources: Sequence[str],
    out: Path,
    *,
    options: PredictOptions,
    outputs: Sequence[Output],
    every: int = 1,
    num_workers: int = 0,
) -> PredictSummary:
    """Find objects in videos, one after the other.

    Each becomes a video with boxes in `videos/`, with the times of its frames and with its sound.
    `predictions.jsonl` has a line per frame, with `frame`, its position from 0, and `time` in
    seconds; tables are made from it as for images.

    Args:
        predictor: the detector.
        sources: video files, cameras and addresses of streams.
        out: the folder for the results.
        options: what to keep of what is found.
        outputs: of `VIDEO_OUTPUTS`; `pictures` stands for the video with boxes.
        every: look at every n-th frame only; the video with boxes has only these.
        num_workers: threads that draw beside the detector.

    Raises:
        ConfigError: where PyAV is not installed, several processes were started, or an output is
            none of videos.
        DatasetError: at the end, where a video could not be opened or is damaged.
        OutputError: where the disk is full.
        StoppedError: where a signal ended it; what was found by then is written.
    """
    _require_possible(sources, out, outputs)
    require_writable(out, LINES, CALL, DETECTIONS, IMAGES, TABLE)
    start_journal(
        out,
        {
            **call_of(predictor, options, outputs),
            "videos": [*map(without_passwords, sources)],
            "every": every,
        },
    )
    names = _names([*map(without_passwords, sources)])
    stopped_by: StopRequested | None = None
    problems: list[str] = []
    run = _Run(predictor, options, "pictures" in outputs, every, num_workers)
    try:
        with graceful_shutdown() as stop, Journal(out) as journal:
            for source, name in zip(sources, names, strict=True):
                try:
                    problems += _predict_video(run, source, out / VIDEOS / name, journal, stop)
                except DatasetError as error:  # one that cannot be opened costs no other
                    problems.append(str(error))
    except StopRequested as request:
        stopped_by = request
    except OSError as error:
        raise no_room(error, out, then="make room and begin anew") from error
    write_tables(out, outputs, predictor.categories)
    summary = summarize(out, 0)
    summary.num_images = summary.num_done
    if stopped_by is not None:
        raise StoppedError(
            f"stopped by {stopped_by} after {summary.num_done} frames; what was found in them is "
            f"in {out}",
            signal_number=stopped_by.signal_number,
        )
    if problems:
        raise DatasetError(*problems)
    summary.raise_problems(None)
    return summary


@dataclass(slots=True)
class _Run:
    """What is asked for, and how many frames are done in all videos."""

    predictor: Predictor
    options: PredictOptions
    draws: bool
    every: int
    num_workers: int
    num_done: int = 0


def _require_possible(sources: Sequence[str], out: Path, outputs: Sequence[Output]) -> None:
    if get_world_size() > 1:
        raise ConfigError("videos are for one process; start without torchrun")
    refused = [output for output in outputs if output not in VIDEO_OUTPUTS]
    if refused:
        raise ConfigError(
            f"--save {listed(refused)}: is for images; of videos there are {listed(VIDEO_OUTPUTS)}"
        )
    inside = [
        source for source in sources if Path(source).resolve().parent == (out / VIDEOS).resolve()
    ]
    if inside:
        raise ConfigError(f"{listed(inside)}: would be overwritten; give another folder by --out")


def _names(sources: Sequence[str]) -> list[str]:
    """Return what the videos with boxes are called, without suffix; each differently."""
    numbers: Counter[str] = Counter()
    names = []
    for source in sources:
        stem = Path(urlsplit(source).path if "://" in source else source).stem or "stream"
        stem = stem.replace("*", "_")  # in place of passwords
        numbers[stem.casefold()] += 1
        number = numbers[stem.casefold()]
        names.append(stem if number == 1 else f"{stem}-{number}")
    return names


def _predict_video(
    run: _Run, source: str, path: Path, journal: Journal, stop: StopSignals
) -> list[str]:
    """Predict one video; return what is wrong with it."""
    num_before, name = run.num_done, without_passwords(source)
    with ExitStack() as stack:
        video = stack.enter_context(open_video(source))
        pool = stack.enter_context(thread_pool(run.num_workers))
        bar = stack.enter_context(
            tqdm(
                total=(video.stream.frames // run.every) or None,
                desc=Path(name).name[:30],
                unit="frame",
                leave=False,
                disable=None,
            )
        )
        target = path.with_name(path.name + video_suffix(video))
        writer: VideoWriter | None = None
        for frame, result, picture in _detected(run, name, video, pool):
            if run.draws:
                writer = writer or stack.enter_context(video_written(target, video))
                writer.write_sound(video.take_sound())
                writer.write(picture, frame.pts)
            journal.append(
                [{**result.to_line(), "frame": frame.number, "time": round(frame.time, 6)}]
            )
            run.num_done += 1
            bar.update()
            if stop.received is not None:  # the video with boxes is completed first
                break
        if writer is not None:
            writer.write_sound(video.take_sound())
    stop.check()
    return _problems(name, video, run.num_done - num_before)


def _detected(
    run: _Run, name: str, video: Video, pool: ThreadPoolExecutor | None
) -> Iterator[tuple[Frame, ImageResult, NDArray[np.uint8]]]:
    """Yield each frame with what was found, and its picture with boxes."""

    def detected() -> Iterator[tuple[Frame, ImageResult]]:
        number = run.num_done
        for frames in batched(video.frames(run.every), run.options.batch_size):
            results = []
            for frame in frames:
                number += 1
                results.append(ImageResult(name, number, frame.pixels))
            detect(results, run.predictor, run.options)
            yield from zip(frames, results, strict=True)

    def draw(
        item: tuple[Frame, ImageResult],
    ) -> tuple[Frame, ImageResult, NDArray[np.uint8]]:
        frame, result = item
        if not run.draws or result.detections is None:
            return frame, result, frame.pixels.permute(1, 2, 0).numpy()
        return frame, result, np.asarray(result.detections.draw(frame.pixels))

    return map_ahead(draw, detected(), pool, num_ahead=2 * run.num_workers)


def _problems(name: str, video: Video, num_frames: int) -> list[str]:
    if not (video.num_broken or video.ended_because) and num_frames:
        return []
    reasons = []
    if video.num_broken:
        reasons.append(f"{video.num_broken} pieces are damaged")
    if video.ended_because:
        reasons.append(f"it ends early ({video.ended_because})")
    reasons.append(
        f"{num_frames} frames were looked at" if num_frames else "no frame could be read"
    )
    return [f"{name}: {'; '.join(reasons)}"]
