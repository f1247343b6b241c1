"""`weights`: published models -> checkpoints of ours."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from dyhead_det.cli.interrupts import clean_up_on_signals
from dyhead_det.cli.streams import echo

app = typer.Typer(
    help="List, download and import published weights.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("import")
def import_(
    source: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="A published file of weights.")
    ],
    out: Annotated[Path, typer.Argument(help="The checkpoint to write.")],
    format: Annotated[
        Literal["auto", "detectron2", "mmdet"], typer.Option(help="Whose file it is.")
    ] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
) -> None:
    """Turn published weights into a checkpoint that finds exactly the same."""
    from dyhead_det.pretrained.importing import import_weights

    clean_up_on_signals()
    report = import_weights(source, out, format=format, overwrite=overwrite)
    echo(f"{report}\nwritten: {out}")


@app.command("list")
def list_() -> None:
    """Show the public DyHead checkpoints."""
    from dyhead_det.pretrained.catalogue import describe_published

    echo(describe_published())


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="A name that `weights list` shows.")],
    folder: Annotated[
        Path | None, typer.Option(file_okay=False, help="Where to put it [default: torch.hub's].")
    ] = None,
) -> None:
    """Fetch a public checkpoint; a broken download goes on where it stopped."""
    from dyhead_det.pretrained.catalogue import find_published
    from dyhead_det.pretrained.download import download as fetch
    from dyhead_det.pretrained.download import weights_folder

    clean_up_on_signals()
    model = find_published(name)
    path = fetch(model.url, folder or weights_folder(), sha256_prefix=model.sha256_prefix)
    echo(f"{path}\nimport it: dyhead-det weights import {path} {model.name}.pt")
