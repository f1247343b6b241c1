"""`data check`, `data stats`, `data preview`: a data set looked at before training."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from dyhead_det.cli.image_option import ImagesOption, images_at
from dyhead_det.cli.quick_imports import quick_imports
from dyhead_det.cli.streams import echo

TargetFile = Annotated[
    Path,
    typer.Argument(
        help="The YAML file of a run, or data: a folder of any format, a COCO file, a data.yaml."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the YAML file."),
]

Split = Annotated[Literal["train", "val"], typer.Option(help="Which data of a run to take.")]


def check(
    target: TargetFile,
    images: ImagesOption = None,
    also: Annotated[
        list[Path] | None,
        typer.Option(
            help="Another COCO file of the same folder: looks for images that both have, "
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
    fix: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            metavar="OUT.json",
            help="Write a repaired copy of a COCO file, and all changes beside it as csv.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.json.")] = False,
) -> None:
    """Read a data set and its images as training would, and list what is wrong with it."""
    with quick_imports():
        from dyhead_det.files import require_writable
        from dyhead_det.inspection.check import check_target
        from dyhead_det.inspection.findings import CHECK_FILES
        from dyhead_det.inspection.repair import changes_path, require_repairable, write_repaired
        from dyhead_det.inspection.targets import read_target

    named = read_target(
        target, images=images_at(images), also=also or (), overrides=overrides or ()
    )
    if out is not None:
        require_writable(out, *CHECK_FILES)
    if fix is not None:
        require_repairable(named, fix, overwrite=overwrite)
    found = check_target(named, opens_images=not no_images)
    echo(found.text())
    if out is not None:
        found.write(out)
        echo(f"written: {', '.join(str(out / name) for name in CHECK_FILES)}")
    if fix is not None:
        repaired, found = write_repaired(found.parts[0], fix, opens_images=not no_images)
        echo(f"\nrepaired: {repaired.summary()} -> {fix}, {changes_path(fix)}\n{found.text()}")
    is_coco = target.suffix.lower() == ".json"
    found.require_usable(
        advice="; --fix OUT.json writes a copy without most of it" if is_coco and not fix else ""
    )


def stats(
    target: TargetFile,
    images: ImagesOption = None,
    split: Split = "train",
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder for stats.json and stats.png."),
    ] = None,
) -> None:
    """Count classes and sizes as the detector sees them, and how its anchors fit."""
    with quick_imports():
        from dyhead_det.files import require_writable
        from dyhead_det.inspection.stats import STATS_FILES, compute_stats
        from dyhead_det.inspection.stats_picture import draw_stats
        from dyhead_det.inspection.targets import read_target

    named = read_target(target, images=images_at(images), overrides=overrides or ())
    if out is not None:
        require_writable(out, *STATS_FILES)
    found = compute_stats(named.load(split), named.config.model, config_name=named.config_name)
    echo(found.text())
    if out is not None:
        json_name, picture_name = STATS_FILES
        found.write_json(out / json_name)
        draw_stats(found, out / picture_name)
        echo(f"\nwritten: {out / json_name}, {out / picture_name}")


def preview(
    target: TargetFile,
    images: ImagesOption = None,
    split: Split = "train",
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(dir_okay=False, help="The picture to write.")] = Path(
        "preview.png"
    ),
    num: Annotated[int, typer.Option(min=1, max=100, help="Images on the sheet, at most.")] = 12,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--classes", help="Show these classes only, separated by commas; repeat as needed."
        ),
    ] = None,
    augmented: Annotated[
        bool,
        typer.Option("--augmented", help="As the detector of a run gets them in training."),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Another seed, other images.")] = 0,
) -> None:
    """Draw a sheet of images with their boxes and names."""
    with quick_imports():
        from dyhead_det.files import require_writable, written_whole
        from dyhead_det.inspection.preview import draw_preview
        from dyhead_det.inspection.targets import read_target

    named = read_target(target, images=images_at(images), overrides=overrides or ())
    require_writable(out.parent, out.name)
    sheet = draw_preview(
        named, split, number=num, seed=seed, classes=classes or (), is_augmented=augmented
    )
    with written_whole(out) as unfinished:
        sheet.save(unfinished, format="PNG")
    echo(f"written: {out}")
