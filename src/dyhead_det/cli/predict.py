"""`predict`."""

from pathlib import Path
from typing import Annotated

import typer

from dyhead_det.cli.quick_imports import quick_imports
from dyhead_det.cli.run import (
    CheckpointFile,
    Device,
    LongEdge,
    MinScoreOption,
    ShortEdge,
    read_min_score,
)
from dyhead_det.cli.streams import echo
from dyhead_det.prediction.arguments import MAX_BATCH_SIZE, MAX_DETECTIONS, MAX_WORKERS, MIN_SCORE
from dyhead_det.prediction.options import DEFAULT_OUTPUTS, OUTPUTS


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
    sources: Annotated[list[str], typer.Argument(help="Images, folders and patterns.")],
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
    draw: Annotated[bool, typer.Option(hidden=True)] = True,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was stopped or killed.")
    ] = False,
    batch_size: Annotated[
        int, typer.Option(min=1, max=MAX_BATCH_SIZE, help="Images at a time.")
    ] = 1,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=MAX_WORKERS,
            help="Threads that read and draw beside the detector [default: one per core, up to 4].",
        ),
    ] = None,
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
        from dyhead_det.prediction.options import PredictOptions
        from dyhead_det.prediction.outputs.image_files import PICTURES
        from dyhead_det.prediction.predictor import load
        from dyhead_det.prediction.sources.files import find_images

    outputs = [output for output in OUTPUTS if output in save and (draw or output != "pictures")]
    bound = read_min_score(min_score)
    with init_process_group(device) as own_device:
        with local_main_first():
            predictor = load(
                checkpoint, device=str(own_device), short_edge=short_edge, long_edge=long_edge
            )
            options = PredictOptions(
                min_score=bound,
                classes=tuple(predictor.split_classes(classes or [])),
                max_detections=max_detections,
                batch_size=batch_size,
            )
            predictor.labels_of(options.classes)  # before folders are searched
            predictor.score_bound(bound)
            images = find_images(sources, except_in=out / PICTURES)
        with pytorch_switches(predictor.runtime):
            summary = predict_to_folder(
                predictor,
                images,
                out,
                options=options,
                outputs=outputs,
                num_workers=default_workers() if workers is None else workers,
                resume=resume,
            )
        main_only(echo)(
            f"{summary.num_detections} objects in {summary.num_images} images -> {summary.results}"
        )
