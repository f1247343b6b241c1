"""`config list`, `config copy` and `config schema`: the configurations that come along."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="List and copy the configurations that come along; the schema of all settings.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("list")
def list_() -> None:
    """Show the configurations that come along, and what each trains."""
    from dyhead_det.config.shipped import describe_shipped

    typer.echo(describe_shipped())


@app.command()
def copy(
    name: Annotated[str, typer.Argument(help="A name that `config list` shows.")],
    to: Annotated[
        Path, typer.Argument(help="The file to write, or a folder.", show_default="NAME.yaml here")
    ] = Path(),
) -> None:
    """Copy a configuration, to be read and changed."""
    from dyhead_det.config.shipped import copy_shipped

    path = copy_shipped(name, to)
    typer.echo(f"{path}\ntrain it: dyhead-det train {path}")


@app.command()
def schema() -> None:
    """Print the JSON schema of a configuration, with which editors check and complete."""
    import json

    from dyhead_det.config.schema import RunConfig

    typer.echo(json.dumps(RunConfig.model_json_schema(), indent=2))
