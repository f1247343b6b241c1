"""`train` and `eval`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from dyhead_det.cli.image_option import ImagesOption, images_at
from dyhead_det.cli.quick_imports import quick_imports
from dyhead_det.cli.streams import echo
from dyhead_det.config.precision import Amp
from dyhead_det.prediction.arguments import (
    AUTO,
    MAX_BATCH_SIZE,
    MAX_DETECTIONS,
    MAX_EDGE,
    MinScore,
    Views,
    require_score,
)

Device = Annotated[
    str, typer.Option(help="auto (CUDA where there is one), cpu, cuda, cuda:1 or mps.")
]
ShortEdge = Annotated[
    int | None, typer.Option(min=1, max=MAX_EDGE, help="Resize to this shorter edge in pixels.")
]
LongEdge = Annotated[
    int | None, typer.Option(min=1, max=MAX_EDGE, help="Bound of the longer edge in pixels.")
]
MinScoreOption = Annotated[
    str,
    typer.Option(
        metavar="NUMBER",
        help="Leave out weaker boxes; auto: weaker than the best bound of their class.",
    ),
]
AmpOption = Annotated[
    Amp, typer.Option(help="Compute in half precision: bf16 or fp16 on a GPU, bf16 on new CPUs.")
]
TtaOption = Annotated[
    str,
    typer.Option(
        metavar="flip,SCALE,...",
        help="Also look from left to right and at other scales (0.8,1.2), and merge the boxes.",
        show_default=False,
    ),
]
CheckpointFile = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, help="best.pt or last.pt of a run.")
]


def train(
    config: Annotated[Path, typer.Argument(exists=True, help="A YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a value; repeat as needed."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder [default: runs/CONFIG].")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from last.pt.")] = False,
    branch: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Start from this last.pt of another run, at its step, under other settings.",
        ),
    ] = None,
    device: Device = "auto",
) -> None:
    """Train a detector as a configuration file says."""
    with quick_imports():
        from dyhead_det.config.file import load_config
        from dyhead_det.distributed.environment import was_restarted
        from dyhead_det.distributed.launch import init_process_group
        from dyhead_det.distributed.rank_zero import local_main_first, main_only
        from dyhead_det.training.train import train

    with init_process_group(device) as own_device:
        with local_main_first():
            run_config = load_config(config, tuple(overrides or ()))
        result = train(
            run_config,
            out or Path("runs") / config.stem,
            device=own_device,
            resume=resume or was_restarted(),
            branch=branch,
        )
        main_only(echo)(result.summary())


def evaluate(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            exists=True, dir_okay=False, help="best.pt or last.pt of a run; none with --detections."
        ),
    ] = None,
    detections: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Score this COCO results file of any detector instead, against --data (.json).",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            help="Annotations (.json), a YAML file with root, annotations and images, a data.yaml "
            "of YOLO, or a folder in any format [default: the validation data of the run].",
        ),
    ] = None,
    images: ImagesOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the results [default: eval beside CHECKPOINT; none with --detections]."
        ),
    ] = None,
    backend: Annotated[
        Literal["auto", "pycocotools", "faster-coco-eval"] | None,
        typer.Option(help="Who computes the numbers [default: as in the run]."),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, max=MAX_BATCH_SIZE, help="Images at a time.")
    ] = None,
    max_detections: Annotated[
        int | None,
        typer.Option(
            min=11,
            max=MAX_DETECTIONS,
            help="Of an image and class that AP counts [default: as in the run].",
        ),
    ] = None,
    broken_images: Annotated[
        Literal["error", "skip"] | None,
        typer.Option(help="What images that cannot be read are [default: as in the run]."),
    ] = None,
    report: Annotated[
        bool,
        typer.Option(help="Also write report.html, which explains the numbers; takes seconds."),
    ] = True,
    amp: AmpOption = "off",
    tta: TtaOption = "",
    short_edge: ShortEdge = None,
    long_edge: LongEdge = None,
    device: Device = "auto",
) -> None:
    """Compute the COCO numbers of a checkpoint, or of the detections of any detector."""
    if detections is not None:
        unused = (checkpoint, batch_size, broken_images, short_edge, long_edge)
        if data is None or amp != "off" or tta or any(option is not None for option in unused):
            msg = "--detections needs --data ANNOTATIONS.json, and no checkpoint or how to run one"
            raise typer.BadParameter(msg)
        if images is not None and (out is None or not report):
            msg = "--images with --detections is for the pictures of a report: give --out"
            raise typer.BadParameter(msg)
        _score_results(
            detections,
            data,
            images=images,
            out=out,
            backend=backend or "auto",
            max_detections=max_detections,
            report=report,
        )
        return
    if checkpoint is None:
        msg = "give a checkpoint, or the detections of any detector by --detections"
        raise typer.BadParameter(msg)
    with quick_imports():
        from dyhead_det.distributed.launch import init_process_group
        from dyhead_det.distributed.rank_zero import main_only
        from dyhead_det.prediction.evaluate_checkpoint import evaluate_checkpoint
        from dyhead_det.reporting.evaluation_report import explain_in

    read_views(tta=tta)
    out = out or checkpoint.parent / "eval"
    with init_process_group(device) as own_device:
        evaluate_checkpoint(
            checkpoint,
            out,
            data=data,
            images=images,
            backend=backend,
            batch_size=batch_size,
            max_detections=max_detections,
            broken_images=broken_images,
            amp=amp,
            tta=tta,
            short_edge=short_edge,
            long_edge=long_edge,
            device=own_device,
            show=lambda result: main_only(echo)(result.table()),
            explain=explain_in(out, title=f"{checkpoint}") if report else None,
        )
        pages = f", {out}/report.html" if report else ""
        main_only(echo)(f"\nwritten: {out}/metrics.json, {out}/detections.json{pages}")


def _score_results(
    detections: Path,
    annotations: Path,
    *,
    images: str | None,
    out: Path | None,
    backend: Literal["auto", "pycocotools", "faster-coco-eval"],
    max_detections: int | None,
    report: bool,
) -> None:
    """Score a results file; print the numbers before they are written, where that is asked for."""
    with quick_imports():
        from dyhead_det.evaluation.coco_scores import evaluate_detections
        from dyhead_det.evaluation.evaluate import write_metrics
        from dyhead_det.evaluation.matching import MAX_DETECTIONS
        from dyhead_det.evaluation.results_file import load_results
        from dyhead_det.files import require_writable
        from dyhead_det.reporting.evaluation_report import images_in, write_report

    if out is not None:
        require_writable(out, "metrics.json", *(["report.html"] if report else []))
    data = load_results(detections, annotations)
    result = evaluate_detections(
        *data,
        backend=backend,
        max_detections=max_detections or MAX_DETECTIONS,
        with_analysis=report and out is not None,
    )
    echo(result.table())
    if out is None:
        return
    write_metrics(out, result, annotations=annotations)
    if report:
        source = images_in(images_at(images), data.ground_truth["images"])
        write_report(out, result, title=f"{detections} on {annotations.name}", images=source)
    echo(f"\nwritten: {out}/metrics.json{f', {out}/report.html' if report else ''}")


def read_min_score(value: str) -> MinScore:
    """Read a number from 0 to 1, or `auto`."""
    if value == AUTO:
        return AUTO
    try:
        return require_score("min_score", float(value))
    except ValueError as error:
        msg = f"{value!r} is neither a number from 0 to 1 nor auto."
        raise typer.BadParameter(msg) from error


def read_views(
    *, tile: int | None = None, tile_overlap: float | None = None, tta: str = ""
) -> Views:
    """Read in which ways to look at an image."""
    try:
        return Views(tile=tile, tile_overlap=tile_overlap, tta=tta)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.".replace("tile_", "--tile-")) from error
