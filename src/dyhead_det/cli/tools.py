"""`info`: what a configuration or a checkpoint describes."""

from pathlib import Path
from typing import Annotated

import typer

from dyhead_det.cli.quick_imports import quick_imports


def info(
    source: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="A YAML file or a checkpoint.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a value of a YAML file."),
    ] = None,
    height: Annotated[
        int | None, typer.Option(min=1, help="Image height [default: short edge].")
    ] = None,
    width: Annotated[
        int | None, typer.Option(min=1, help="Image width [default: long edge].")
    ] = None,
) -> None:
    """Show classes, levels, parameters and cost of a detector."""
    with quick_imports():
        from dyhead_det.engine.describe import describe

    typer.echo(describe(source, tuple(overrides or ()), height=height, width=width))
