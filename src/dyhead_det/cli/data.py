"""`data demo` and `data check`."""

from pathlib import Path
from typing import Annotated

import typer

from dyhead_det.cli.interrupts import clean_up_on_signals
from dyhead_det.cli.streams import echo
from dyhead_det.escaping import printable

app = typer.Typer(help="Make and check data sets.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(file_okay=False, help="Where to draw it.")],
    num_train: Annotated[int, typer.Option(min=1, help="Training images.")] = 400,
    num_val: Annotated[int, typer.Option(min=1, help="Validation images.")] = 100,
    size: Annotated[int, typer.Option(min=64, help="Side of an image in pixels.")] = 160,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other images.")] = 0,
) -> None:
    """Draw a data set of shapes in COCO format: the same bytes for the same seed."""
    from dyhead_det.data.demo import draw_demo

    clean_up_on_signals()
    draw_demo(folder, num_train=num_train, num_val=num_val, size=size, seed=seed)
    echo(f"{num_train} training and {num_val} validation images -> {folder}")


@app.command()
def check(
    annotations: Annotated[Path, typer.Argument(help="A COCO annotation file.")],
    images: Annotated[Path, typer.Option(file_okay=False, help="The folder of its images.")],
) -> None:
    """Read a data set as training would, and tell what is repaired or wrong."""
    from dyhead_det.data.coco import load_coco, require_images

    clean_up_on_signals()
    dataset = load_coco(annotations, images, split="train")
    require_images(dataset)
    echo(
        f"{annotations}: {len(dataset)} images, {len(dataset.boxes)} boxes, "
        f"{int(dataset.is_crowd.sum())} of them crowds, {len(dataset.categories)} categories: "
        f"{', '.join(map(printable, dataset.categories.names))}"
    )
