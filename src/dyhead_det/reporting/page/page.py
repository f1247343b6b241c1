"""Templates and pictures to one page of HTML, whose names from data are text whatever they hold."""

import base64
import io
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from dyhead_det import __version__
from dyhead_det.escaping import printable, printable_lines
from dyhead_det.evaluation.coco_scores import decimal
from dyhead_det.files import written_whole
from dyhead_det.tables import number_columns

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_JPEG_QUALITY = 82


class Table(NamedTuple):
    """Cells below a header."""

    header: Sequence[str]
    rows: Sequence[Sequence[object]]


def write_page(path: Path, template: str, values: Mapping[str, object]) -> None:
    """Fill a template, `<template>.html` of this folder, and write the page whole or not at all.

    Args:
        path: of the page.
        template: its name.
        values: what it names.
    """
    text = _environment().get_template(f"{template}.html").render(values)
    with written_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors="replace")  # of lone surrogates


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415 - when needed
    from markupsafe import Markup, escape  # noqa: PLC0415 - as jinja2

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Text from outside is one line without terminal escapes or turned directions, too.
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters["decimal"] = decimal
    environment.filters["lines"] = lambda text: Markup(escape(printable_lines(text)))
    environment.globals["number_columns"] = number_columns
    environment.globals["version"] = __version__
    return environment


def embedded(picture: Image.Image, *, longer_edge: int) -> str:
    """Return a picture of photographs as a data URI, made smaller where it is larger."""
    picture = picture.convert("RGB")
    picture.thumbnail((longer_edge, longer_edge))
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def embedded_png(path: Path) -> str:
    """Return a PNG file as a data URI, as it is."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def svg_element(svg: str) -> "Markup":
    """Let a drawing of ours into a page as it is."""
    from markupsafe import Markup  # noqa: PLC0415 - as jinja2

    return Markup(svg)
