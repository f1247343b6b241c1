"""`data convert`, `data split`, `data merge` and `data subset`: data sets written anew."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dyhead_det.cli.image_option import ImagesOption, images_at
from dyhead_det.cli.interrupts import clean_up_on_signals
from dyhead_det.cli.streams import echo

if TYPE_CHECKING:
    from dyhead_det.data.formats.output import Output

SourceOption = Annotated[
    Path,
    typer.Argument(
        exists=True, help="A folder of COCO, YOLO or Pascal VOC, a COCO file, or a data.yaml."
    ),
]
Out = Annotated[Path, typer.Option(file_okay=False, help="The new folder.")]
To = Annotated[Literal["coco", "yolo", "voc"], typer.Option(help="The format to write.")]
ToSame = Annotated[
    Literal["coco", "yolo", "voc"] | None,
    typer.Option("--to", help="The format to write [default: that of the source]."),
]
From = Annotated[
    Literal["auto", "coco", "yolo", "voc"],
    typer.Option("--from", help="The format of the source, where it has several."),
]
SplitName = Annotated[
    str | None, typer.Option("--split", help="Only this part, such as trainval [default: all].")
]
Files = Annotated[
    Literal["link", "copy", "reference"],
    typer.Option(
        help="Image files get a second name (hard links, or copies where the disk has none), are "
        "copied, or stay where they are (COCO only)."
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace a data set that was written so before.")
]
Seed = Annotated[int, typer.Option(min=0, help="Another seed, another choice.")]


def _pattern(text: str | None) -> str | None:
    """Refuse what is no regular expression."""
    try:
        re.compile(text or "")
    except (re.error, RecursionError, OverflowError) as error:
        msg = f"{text!r} is no regular expression: {error}"
        raise typer.BadParameter(msg) from error
    return text


Group = Annotated[
    str | None,
    typer.Option(
        callback=_pattern,
        help="A regular expression; images in whose file names it finds the same stay together.",
    ),
]


def convert(
    source: SourceOption,
    to: To,
    out: Out,
    images: ImagesOption = None,
    source_format: From = "auto",
    split: SplitName = None,
    files: Files = "link",
    overwrite: Overwrite = False,
) -> None:
    """Write a data set in another format: the same boxes, classes and images."""
    from dyhead_det.data.formats.parts import read_parts
    from dyhead_det.data.formats.source import Source
    from dyhead_det.data.formats.write import write_dataset

    clean_up_on_signals()
    _, parts = read_parts(Source(source, images_at(images), source_format, split))
    several = {name: [dataset] for name, dataset in parts.items()}
    output = write_dataset(several, out, to, files=files, overwrite=overwrite)
    _summarize(output, out, to)


def split(
    source: SourceOption,
    out: Out,
    val: Annotated[float, typer.Option(help="Share of the validation data.")] = 0.2,
    test: Annotated[float, typer.Option(help="Share of the test data.")] = 0.0,
    group: Group = None,
    seed: Seed = 0,
    images: ImagesOption = None,
    source_format: From = "auto",
    part: SplitName = None,
    to: ToSame = None,
    files: Files = "link",
    overwrite: Overwrite = False,
) -> None:
    """Split a data set at random into training, validation and test data, each class alike."""
    from dyhead_det.data.formats.parts import read_parts
    from dyhead_det.data.formats.rearrange import split_dataset
    from dyhead_det.data.formats.source import Source
    from dyhead_det.data.formats.write import write_dataset
    from dyhead_det.errors import ConfigError

    clean_up_on_signals()
    form, parts = read_parts(Source(source, images_at(images), source_format, part))
    if len(parts) > 1:
        raise ConfigError(
            f"{source} is split already ({', '.join(parts)}); split one part of it, without the "
            f"others, by --split {next(iter(parts))}"
        )
    (dataset,) = parts.values()
    new = split_dataset(dataset, val=val, test=test, group=group, seed=seed)
    several = {name: [one] for name, one in new.items()}
    output = write_dataset(several, out, to or form, files=files, overwrite=overwrite)
    _summarize(output, out, to or form)


def merge(
    sources: Annotated[
        list[Path], typer.Argument(exists=True, help="Data sets, each in any format.")
    ],
    out: Out,
    to: ToSame = None,
    files: Files = "link",
    overwrite: Overwrite = False,
) -> None:
    """Put data sets together: classes of one name are one, training data go to training data."""
    from dyhead_det.data.formats.parts import read_parts
    from dyhead_det.data.formats.rearrange import merge_datasets
    from dyhead_det.data.formats.source import Source
    from dyhead_det.data.formats.write import write_dataset

    clean_up_on_signals()
    read = [read_parts(Source(source)) for source in sources]
    form = to or read[0][0]
    several = merge_datasets([parts for _, parts in read])
    output = write_dataset(several, out, form, files=files, overwrite=overwrite)
    _summarize(output, out, form)


def subset(
    source: SourceOption,
    out: Out,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            help="Keep these classes, in this order, and the images that show one; separated by "
            "commas, repeat as needed."
        ),
    ] = None,
    keep_empty: Annotated[
        bool, typer.Option("--keep-empty", help="Keep images that show none of the classes too.")
    ] = False,
    num_images: Annotated[
        int | None, typer.Option(min=1, help="Keep so many images of each part, classes alike.")
    ] = None,
    share: Annotated[
        float | None, typer.Option(min=0, max=1, help="Keep this share of each part.")
    ] = None,
    seed: Seed = 0,
    images: ImagesOption = None,
    source_format: From = "auto",
    split: SplitName = None,
    to: ToSame = None,
    files: Files = "link",
    overwrite: Overwrite = False,
) -> None:
    """Write a part of a data set: some of its classes, or fewer images."""
    from dyhead_det.data.formats.parts import read_parts
    from dyhead_det.data.formats.rearrange import reduce_dataset
    from dyhead_det.data.formats.source import Source
    from dyhead_det.data.formats.write import write_dataset

    clean_up_on_signals()
    if num_images is not None and share is not None:
        msg = "--num-images and --share say the same; give one of them."
        raise typer.BadParameter(msg)
    names = tuple(dict.fromkeys(name.strip() for text in classes or () for name in text.split(",")))
    form, parts = read_parts(Source(source, images_at(images), source_format, split))
    several = {
        name: [
            reduce_dataset(
                dataset,
                classes=names or None,
                keeps_empty=keep_empty,
                num_images=num_images,
                share=share,
                seed=seed,
            )
        ]
        for name, dataset in parts.items()
    }
    output = write_dataset(several, out, to or form, files=files, overwrite=overwrite)
    _summarize(output, out, to or form)


def _summarize(output: "Output", out: Path, form: str) -> None:
    """Print what was written, and what the format could not hold."""
    numbers = ", ".join(f"{len(images)} {part}" for part, images in output.parts.items())
    things = [
        thing for images in output.parts.values() for image in images for thing in image.objects
    ]
    echo(f"{numbers} images, {len(things)} boxes, {len(output.categories)} classes -> {out}")
    num_crowds = sum(thing.is_crowd for thing in things)
    if num_crowds and form == "yolo":
        echo(f"{num_crowds} crowd regions were left out: YOLO has no word for them")
