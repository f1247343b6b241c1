"""`info` and `explain`: what a checkpoint is, and what it sees."""

from pathlib import Path
from typing import Annotated

import typer

from dyhead_det.cli.quick_imports import quick_imports
from dyhead_det.cli.run import (
    CheckpointFile,
    MinScoreOption,
    read_min_score,
)
from dyhead_det.cli.streams import echo
from dyhead_det.prediction.arguments import MAX_EDGE, MIN_SCORE


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


def _pixel(text: str) -> tuple[float, float]:
    """Read X,Y."""
    try:
        x, y = map(float, text.split(","))
    except ValueError as error:
        msg = f"{text!r} is no pixel; write X,Y such as 120,64"
        raise typer.BadParameter(msg) from error
    return x, y


def explain(
    checkpoint: CheckpointFile,
    image: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="An image file.")],
    out: Annotated[Path, typer.Option(help="Folder for picture and npz.")] = Path("explained"),
    box: Annotated[
        int | None,
        typer.Option(min=1, help="Look at this detection, best first [default: 1]."),
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="X,Y", help="Look at this pixel of the image instead.")
    ] = None,
    class_name: Annotated[
        str | None,
        typer.Option("--class", help="Look at the best detection of this class instead."),
    ] = None,
    level: Annotated[
        str | None,
        typer.Option(help="Look at this level, such as p4 [default: what suits the box's size]."),
    ] = None,
    min_score: MinScoreOption = str(MIN_SCORE),
) -> None:
    """Show what DyHead looked at in an image: one picture, and the numbers as npz."""
    if sum(choice is not None for choice in (box, at, class_name)) > 1:
        msg = "give one of --box, --at and --class"
        raise typer.BadParameter(msg)
    point, least_score = None if at is None else _pixel(at), read_min_score(min_score)
    with quick_imports():
        from dyhead_det.explain.files import explain_to_folder

    written = explain_to_folder(
        checkpoint,
        image,
        out,
        box=box,
        at=point,
        class_name=class_name,
        level=level,
        min_score=least_score,
    )
    echo(f"written: {written.picture}, {written.arrays}")
