"""`data`: its `demo`; the other commands lie beside it."""

from pathlib import Path
from typing import Annotated

import typer

from dyhead_det.cli.data_convert import convert, merge, split, subset
from dyhead_det.cli.inspect_data import check, preview, stats
from dyhead_det.cli.interrupts import clean_up_on_signals
from dyhead_det.cli.streams import echo

app = typer.Typer(help="Make and check data sets.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(file_okay=False, help="Where to draw it.")],
    num_train: Annotated[int, typer.Option(min=1, help="Training images.")] = 400,
    num_val: Annotated[int, typer.Option(min=1, help="Validation images.")] = 100,
    size: Annotated[int, typer.Option(min=64, help="Side of an image in pixels.")] = 160,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other images.")] = 0,
    hard: Annotated[
        bool, typer.Option("--hard", help="Ten shapes in crowds: turned, stretched, of all sizes.")
    ] = False,
) -> None:
    """Draw a data set of shapes in COCO format: the same bytes for the same seed."""
    from dyhead_det.data.demo.drawing import draw_demo
    from dyhead_det.data.demo.styles import EASY, HARD

    clean_up_on_signals()
    style = HARD if hard else EASY
    draw_demo(folder, num_train=num_train, num_val=num_val, size=size, seed=seed, style=style)
    echo(f"{num_train} training and {num_val} validation images -> {folder}")


app.command()(check)
app.command()(stats)
app.command()(preview)
app.command()(convert)
app.command()(split)
app.command()(merge)
app.command()(subset)
