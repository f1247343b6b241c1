"""`data check`: a data set looked at before training."""

from pathlib import Path
from typing import Annotated

import typer

from dyhead_det.cli.interrupts import clean_up_on_signals
from dyhead_det.cli.streams import echo

TargetFile = Annotated[
    Path, typer.Argument(help="A COCO annotation file (.json), or the YAML file of a run.")
]
Images = Annotated[
    Path | None, typer.Option(file_okay=False, help="The folder of the images of a .json file.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the YAML file."),
]


def check(
    target: TargetFile,
    images: Images = None,
    also: Annotated[
        list[Path] | None,
        typer.Option(
            help="Another annotation file of the same folder: looks for images that both have, "
            "too; repeat as needed."
        ),
    ] = None,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder for check.json and check.csv: all findings."),
    ] = None,
    no_images: Annotated[
        bool, typer.Option("--no-images", help="Do not open the images, which takes longest.")
    ] = False,
) -> None:
    """Read a data set and its images as training would, and list what is wrong with it."""
    from dyhead_det.files import require_writable
    from dyhead_det.inspection.check import check_target
    from dyhead_det.inspection.findings import CHECK_FILES
    from dyhead_det.inspection.targets import read_target

    clean_up_on_signals()
    named = read_target(target, images=images, also=also or (), overrides=overrides or ())
    if out is not None:
        require_writable(out, *CHECK_FILES)
    found = check_target(named, opens_images=not no_images)
    echo(found.text())
    if out is not None:
        found.write(out)
        echo(f"written: {', '.join(str(out / name) for name in CHECK_FILES)}")
    found.require_usable()
