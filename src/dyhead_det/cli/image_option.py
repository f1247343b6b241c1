"""The option `--images`: a folder, tar archives or a URL."""

import glob
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dyhead_det.data.stores.store import ImageLocation


def _require_place(value: str | None) -> str | None:
    """Refuse a path that is not there; patterns and URLs are looked at later."""
    is_path = value is not None and "://" not in value and "{" not in value
    if is_path and value and not glob.has_magic(value) and not Path(value).exists():
        msg = f"Path '{value}' does not exist."
        raise typer.BadParameter(msg)
    return value


ImagesOption = Annotated[
    str | None,
    typer.Option(
        "--images",
        metavar="PLACE",
        callback=_require_place,
        help="The images of a COCO file: a folder, a .tar or a pattern of several, or a URL "
        "[default: looked for].",
    ),
]


def images_at(value: str | None) -> "ImageLocation | None":
    """Return where the option says that images lie."""
    from dyhead_det.data.stores.locate import image_location

    return None if value is None else image_location(value)
