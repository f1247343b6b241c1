"""`info` and `export`: what a checkpoint is, and the same for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from dyhead_det.cli.quick_imports import quick_imports
from dyhead_det.cli.run import CheckpointFile, LongEdge, ShortEdge
from dyhead_det.cli.streams import echo
from dyhead_det.prediction.arguments import MAX_EDGE


def info(
    source: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="A YAML file or a checkpoint.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a value of a YAML file."),
    ] = None,
    height: Annotated[
        int | None, typer.Option(min=1, max=MAX_EDGE, help="Image height [default: short edge].")
    ] = None,
    width: Annotated[
        int | None, typer.Option(min=1, max=MAX_EDGE, help="Image width [default: long edge].")
    ] = None,
) -> None:
    """Show classes, levels, parameters and cost of a detector."""
    with quick_imports():
        from dyhead_det.prediction.describe import describe

    echo(describe(source, tuple(overrides or ()), height=height, width=width))


def export(
    checkpoint: CheckpointFile,
    out: Annotated[Path, typer.Argument(dir_okay=False, help="The ONNX file to write.")],
    check_image: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Compare file and checkpoint on this image [default: one of the validation data].",
        ),
    ] = None,
    uint8: Annotated[
        bool, typer.Option("--uint8", help="Take pixels in 0..255 instead of floats in [0, 1].")
    ] = False,
    short_edge: ShortEdge = None,
    long_edge: LongEdge = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
) -> None:
    """Write a checkpoint as an ONNX file that finds the same."""
    with quick_imports():
        from dyhead_det.export.export import export as export_checkpoint

    summary = export_checkpoint(
        checkpoint,
        out,
        check_image=check_image,
        takes_uint8=uint8,
        short_edge=short_edge,
        long_edge=long_edge,
        overwrite=overwrite,
    )
    echo(summary)
