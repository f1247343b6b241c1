"""`predict`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dyhead_det.cli.image_option import ImagesOption, images_at
from dyhead_det.cli.quick_imports import quick_imports
from dyhead_det.cli.run import (
    AmpOption,
    CheckpointFile,
    Device,
    LongEdge,
    MinScoreOption,
    ShortEdge,
    TtaOption,
    read_min_score,
    read_views,
)
from dyhead_det.cli.streams import echo
from dyhead_det.prediction.arguments import (
    MAX_BATCH_SIZE,
    MAX_DETECTIONS,
    MAX_TILE_OVERLAP,
    MAX_WORKERS,
    MIN_SCORE,
    MIN_TILE,
    TILE_OVERLAP,
)
from dyhead_det.prediction.options import DEFAULT_OUTPUTS, OUTPUTS, PredictOptions
from dyhead_det.prediction.sources.video_names import is_video

if TYPE_CHECKING:
    from dyhead_det.prediction.predictor import Predictor

# In place of sources: their paths come on standard input.
STDIN = "-"


def _outputs(values: list[str] | None) -> list[str]:
    """Take apart names that are separated by commas; refuse unknown ones."""
    names = [name.strip() for value in values or () for name in value.split(",")]
    for name in names:
        if name not in OUTPUTS:
            msg = f"{name!r} is not one of {', '.join(OUTPUTS)}."
            raise typer.BadParameter(msg)
    return names


def predict(
    checkpoint: CheckpointFile,
    context: typer.Context,
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="Images, folders, patterns, lists of images (.txt); or videos, cameras and "
            "streams; or - for paths from standard input, each answered by a JSON line at once."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(exists=True, help="The images of a data set, in place of SOURCES."),
    ] = None,
    images: ImagesOption = None,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("predictions"),
    min_score: MinScoreOption = str(MIN_SCORE),
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--classes", help="Keep these classes only, separated by commas; repeat as needed."
        ),
    ] = None,
    max_detections: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_DETECTIONS, help="Keep so many boxes per image, best first."),
    ] = None,
    save: Annotated[
        list[str],
        typer.Option(
            callback=_outputs,
            metavar="|".join(OUTPUTS),
            help="What to write besides predictions.jsonl, separated by commas; repeat as needed.",
        ),
    ] = list(DEFAULT_OUTPUTS),  # noqa: B006 - typer shows it, nobody changes it
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was stopped or killed.")
    ] = False,
    batch_size: Annotated[
        int, typer.Option(min=1, max=MAX_BATCH_SIZE, help="Images, or tiles, at a time.")
    ] = 1,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=MAX_WORKERS,
            help="Threads that read and draw beside the detector [default: one per core, up to 4].",
        ),
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Of a video, look at every n-th frame.")] = 1,
    tile: Annotated[
        int | None,
        typer.Option(
            min=MIN_TILE,
            metavar="SIZE",
            help="Also look at larger images in overlapping tiles of so many pixels.",
        ),
    ] = None,
    tile_overlap: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=MAX_TILE_OVERLAP,
            help="Share of its edge that a tile has in common with the next one "
            f"[default: {TILE_OVERLAP}].",
        ),
    ] = None,
    tta: TtaOption = "",
    amp: AmpOption = "off",
    short_edge: ShortEdge = None,
    long_edge: LongEdge = None,
    device: Device = "auto",
) -> None:
    """Find objects in images: annotated pictures, COCO results and more."""
    with quick_imports():
        from dyhead_det.distributed.launch import init_process_group
        from dyhead_det.distributed.rank_zero import local_main_first, main_only
        from dyhead_det.models.runtime import pytorch_switches
        from dyhead_det.prediction.folder import default_workers, predict_to_folder
        from dyhead_det.prediction.load import load
        from dyhead_det.prediction.outputs.image_files import PICTURES
        from dyhead_det.prediction.sources.dataset import dataset_images
        from dyhead_det.prediction.sources.files import find_images
        from dyhead_det.prediction.video import predict_videos

    outputs = [output for output in OUTPUTS if output in save]
    _require_fitting(context, sources or [], data, images)
    read_views(tile=tile, tile_overlap=tile_overlap, tta=tta)
    bound = read_min_score(min_score)
    with init_process_group(device) as own_device:
        with local_main_first():
            predictor = load(
                checkpoint,
                device=str(own_device),
                short_edge=short_edge,
                long_edge=long_edge,
                amp=amp,
                tile=tile,
                tile_overlap=tile_overlap,
                tta=tta,
            )
            options = PredictOptions(
                min_score=bound,
                classes=tuple(predictor.split_classes(classes or [])),
                max_detections=max_detections,
                batch_size=batch_size,
            )
            predictor.labels_of(options.classes)  # before folders are searched
            predictor.score_bound(bound)
            if sources == [STDIN]:
                _answer_stdin(predictor, options)
                return
        num_workers = default_workers() if workers is None else workers
        if any(map(is_video, sources or [])):
            with pytorch_switches(predictor.runtime):
                summary = predict_videos(
                    predictor,
                    sources or [],
                    out,
                    options=options,
                    outputs=outputs,
                    every=every,
                    num_workers=num_workers,
                )
            echo(f"{summary.num_detections} objects in {summary.num_images} frames -> {out}")
            return
        with local_main_first():
            found = (
                find_images(sources or [], except_in=out / PICTURES)
                if data is None
                else dataset_images(data, images_at(images))
            )
        with pytorch_switches(predictor.runtime):
            summary = predict_to_folder(
                predictor,
                found,
                out,
                options=options,
                outputs=outputs,
                num_workers=num_workers,
                resume=resume,
            )
        main_only(echo)(
            f"{summary.num_detections} objects in {summary.num_images} images -> {summary.results}"
        )


def _require_fitting(
    context: typer.Context, sources: list[str], data: Path | None, images: str | None
) -> None:
    """Refuse options that do not go together: none of them is ignored in silence."""
    if bool(sources) == (data is not None):
        msg = "Give either images (files, folders, patterns, lists) or --data."
        raise typer.BadParameter(msg)
    if images is not None and data is None:
        msg = "--images goes with --data ANNOTATIONS.json."
        raise typer.BadParameter(msg)
    videos = [source for source in sources if is_video(source)]
    if videos and len(videos) < len(sources):
        msg = "Images and videos take two calls."
        raise typer.BadParameter(msg)
    if videos and context.params["resume"]:
        msg = "A video is predicted in one go: no --resume."
        raise typer.BadParameter(msg)
    if not videos and context.params["every"] > 1:
        msg = "--every is for videos."
        raise typer.BadParameter(msg)
    if STDIN not in sources:
        return
    if len(sources) > 1:
        msg = f"{STDIN}, paths from standard input, stands alone."
        raise typer.BadParameter(msg)
    for name in ("out", "save", "resume", "batch_size", "workers"):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            msg = f"With {STDIN} nothing is written but lines to standard output: no --{name}."
            raise typer.BadParameter(msg.replace("_", "-"))


def _answer_stdin(predictor: "Predictor", options: PredictOptions) -> None:
    """Answer each path on standard input by a JSON line on standard output, at once.

    Raises:
        DatasetError: at the end, if there were images that could not be used.
    """
    from dyhead_det.distributed.world import get_world_size
    from dyhead_det.errors import ConfigError, DatasetError
    from dyhead_det.models.runtime import pytorch_switches
    from dyhead_det.prediction.inference import predict_lines

    if get_world_size() > 1:
        msg = "paths on standard input are for one process; start without torchrun"
        raise ConfigError(msg)
    num_images = num_unused = 0
    with pytorch_switches(predictor.runtime):
        # Not by iterating over the stream, which reads ahead.
        for line in predict_lines(predictor, iter(sys.stdin.readline, ""), options):
            echo(json.dumps(line, allow_nan=False))
            num_images += 1
            num_unused += "failed_at" in line
    if num_unused:
        msg = f"{num_unused} of {num_images} images could not be used; their lines say why"
        raise DatasetError(msg)
