"""Contact sheets: pictures in rows, and hits, misses and false detections told apart."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from dyhead_det.escaping import printable
from dyhead_det.visualize.draw import (
    INK,
    PAPER,
    Color,
    Mark,
    draw_marks,
    draw_outline,
    shortened,
    text_height,
)

Kind = Literal["hit", "missed", "false"]


class Style(NamedTuple):
    """How boxes of a kind look, and what the legend calls them."""

    color: Color
    is_dashed: bool
    legend: str


# Okabe and Ito's colors for all kinds of color vision (2008); the dashes need none.
STYLES: dict[Kind, Style] = {
    "hit": Style((86, 180, 233), False, "hit: an annotated object that is detected"),
    "missed": Style((240, 228, 66), True, "missed: annotated, but not detected"),
    "false": Style((213, 94, 0), False, "false: detected, but not annotated, or a second time"),
}
# In a fuller picture the captions of hits would hide what is under them.
_MOST_CAPTIONS = 12
# Height by width from which on four images stand in a row, of wider ones three.
_NEARLY_SQUARE = 0.85
_LINE_WIDTH = 3


class Outcome(NamedTuple):
    """A box with what became of it."""

    kind: Kind
    box: tuple[float, float, float, float]
    caption: str


class ImageWithOutcomes(NamedTuple):
    """An image (3, H, W) uint8 with the outcomes of its evaluation, in pixels of the image."""

    title: str
    image: Tensor
    outcomes: Sequence[Outcome]


def outcome_sheet(images: Sequence[ImageWithOutcomes], *, width: int, note: str) -> Image.Image:
    """Lay out images with their hits, misses and false detections, below a legend.

    Args:
        images: at least one; each is scaled to fit a cell of the sheet.
        width: of the cells in a row together, in pixels.
        note: a remark behind the legend.
    """
    shapes = sorted(each.image.shape[1] / each.image.shape[2] for each in images)
    shape = min(max(shapes[len(shapes) // 2], 0.5), 1.5)  # height by width of the middle image
    columns = min(len(images), 3 if shape < _NEARLY_SQUARE else 4)
    cell_width = width // max(2, columns)
    cell = (cell_width, round(cell_width * shape))
    sheet = contact_sheet(
        [_fitted(each, cell) for each in images],
        [f"{_counted(each.outcomes)}: {each.title}" for each in images],
        columns=columns,
        tile=max(cell),
    )
    legend = _legend(sheet.width, note)
    page = Image.new("RGB", (sheet.width, legend.height + sheet.height), color=PAPER)
    page.paste(legend, (0, 0))
    page.paste(sheet, (0, legend.height))
    return page


def contact_sheet(
    pictures: Sequence[Image.Image], titles: Sequence[str], *, columns: int, tile: int
) -> Image.Image:
    """Lay pictures out row by row, each under its title.

    Args:
        pictures: at least one; larger ones are reduced to the tile, smaller ones are not enlarged.
        titles: one for each picture.
        columns: pictures in a row.
        tile: largest width and height of a picture on the sheet, in pixels.
    """
    tiles = [picture.copy() for picture in pictures]
    for reduced in tiles:
        reduced.thumbnail((tile, tile))
    font = ImageFont.load_default(max(11, tile // 32))
    gap = max(4, tile // 50)
    title_height = text_height(font) + gap
    columns = min(columns, len(tiles))
    width = max(picture.width for picture in tiles)
    height = max(picture.height for picture in tiles) + title_height
    rows = math.ceil(len(tiles) / columns)
    sheet = Image.new(
        "RGB", (gap + columns * (width + gap), gap + rows * (height + gap)), color=PAPER
    )
    canvas = ImageDraw.Draw(sheet)
    for i, (picture, title) in enumerate(zip(tiles, titles, strict=True)):
        left = gap + i % columns * (width + gap)
        top = gap + i // columns * (height + gap)
        canvas.text((left, top), shortened(printable(title), font, width), fill=INK, font=font)
        sheet.paste(picture, (left, top + title_height))
    return sheet


def _fitted(scored: ImageWithOutcomes, size: tuple[int, int]) -> Image.Image:
    """Draw an image as large as its cell allows, in the middle of it."""
    _, height, width = scored.image.shape
    scale = min(size[0] / width, size[1] / height)
    is_full = len(scored.outcomes) > _MOST_CAPTIONS
    # What went wrong lies on top.
    ordered = sorted(scored.outcomes, key=lambda outcome: outcome.kind == "hit")
    marks = [
        Mark(
            outcome.box,
            "" if is_full and outcome.kind == "hit" else outcome.caption,
            STYLES[outcome.kind].color,
            STYLES[outcome.kind].is_dashed,
        )
        for outcome in ordered
    ]
    longer_edge = max(1, int(scale * max(width, height)))
    picture = draw_marks(scored.image, marks, longer_edge=longer_edge, line_width=_LINE_WIDTH)
    return ImageOps.pad(picture, size, color=PAPER)


def _counted(outcomes: Sequence[Outcome]) -> str:
    kinds = [outcome.kind for outcome in outcomes]
    return f"{kinds.count('hit')} hit, {kinds.count('missed')} missed, {kinds.count('false')} false"


def _legend(width: int, note: str) -> Image.Image:
    """Return a band with a sample and the name of each kind, as many in a line as fit."""
    font = ImageFont.load_default(max(13, width // 90))
    line, margin = text_height(font) + 10, 8
    sample_width = 2 * line
    band = Image.new("RGB", (width, 5 * line), color=PAPER)
    canvas = ImageDraw.Draw(band)
    left, top = margin, margin
    for style in (*STYLES.values(), None):
        text = note if style is None else style.legend
        text_left = 0 if style is None else sample_width + margin
        needed = text_left + math.ceil(font.getlength(text))
        if left > margin and left + needed > width:
            left, top = margin, top + line
        if style is not None:
            sample = (left, top, left + sample_width, top + line - 8)
            draw_outline(canvas, sample, style.color, width=4, is_dashed=style.is_dashed)
        canvas.text((left + text_left, top), text, fill=INK, font=font)
        left += needed + 4 * margin
    return band.crop((0, 0, width, top + line))
