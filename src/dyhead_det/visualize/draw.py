"""Pictures with boxes: readable labels, one color per class, sizes that follow the picture."""

import bisect
import colorsys
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dyhead_det.escaping import printable

Color = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
# Left, top, right, bottom in pixels.
Rectangle = tuple[int, int, int, int]

# Labels would cover a smaller picture: it is enlarged by a whole number until it is that wide.
READABLE_EDGE = 320
PAPER: Color = (250, 250, 250)
INK: Color = (30, 30, 30)


class Mark(NamedTuple):
    """A box to draw: `xyxy` in pixels of the image; without a caption only its outline."""

    box: tuple[float, float, float, float]
    caption: str
    color: Color
    is_dashed: bool = False


def class_color(label: int) -> Color:
    """Return the color of a class: the same in every run, far from those of its neighbors.

    Golden-ratio steps around the hue circle never meet; three grades of saturation and brightness
    part the hues that come close.
    """
    hue = (0.99 + label * 0.618034) % 1.0
    saturation, brightness = ((0.85, 1.0), (0.55, 1.0), (0.9, 0.7))[label % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, brightness)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_detections(
    image: Tensor,
    boxes: ArrayLike,
    labels: ArrayLike,
    scores: ArrayLike | None,
    names: Sequence[str] | Mapping[int, str],
    *,
    longer_edge: int | None = None,
) -> Image.Image:
    """Draw boxes with their classes and scores onto a copy of an image.

    Args:
        image: (3, H, W) uint8.
        boxes: (N, 4) xyxy in pixels of the image, best first.
        labels: (N,) class numbers.
        scores: (N,) in [0, 1], or None for ground truth.
        names: what each class number is called.
        longer_edge: of the picture in pixels; the image is brought to it before it is drawn on, so
            that lines and labels are sharp. None keeps the image's own, but enlarges a small one
            (see `READABLE_EDGE`).

    Returns:
        An RGB picture.
    """
    numbers = np.asarray(labels, dtype=np.int64).reshape(-1).tolist()
    captions = [names[label] for label in numbers]
    if scores is not None:
        percents = np.asarray(scores, dtype=np.float64).reshape(-1) * 100
        captions = [
            f"{name} {percent:.0f}%" for name, percent in zip(captions, percents, strict=True)
        ]
    boxes_xyxy = np.asarray(boxes, dtype=np.float64).reshape(-1, 4).tolist()
    marks = [
        Mark((x1, y1, x2, y2), caption, class_color(label))
        for (x1, y1, x2, y2), caption, label in zip(boxes_xyxy, captions, numbers, strict=True)
    ]
    return draw_marks(image, marks, longer_edge=longer_edge)


def draw_marks(
    image: Tensor,
    marks: Sequence[Mark],
    *,
    longer_edge: int | None = None,
    line_width: int | None = None,
) -> Image.Image:
    """Draw boxes with captions onto a copy of an image.

    Args:
        image: (3, H, W) uint8.
        marks: what is to be drawn; the first lies on top, and chooses the position of its caption.
        longer_edge: as in `draw_detections`.
        line_width: in pixels, by default after the size of the picture.

    Returns:
        An RGB picture.
    """
    picture = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
    scale: float = math.ceil(READABLE_EDGE / max(picture.size))
    if longer_edge is not None:
        scale = longer_edge / max(picture.size)
    width, height = (max(1, round(edge * scale)) for edge in picture.size)
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    outlines = _outlines([mark.box for mark in marks], scale, picture.size)
    canvas = ImageDraw.Draw(picture)
    line_width = line_width or max(2, round(math.sqrt(width * height) / 250))
    for outline, mark in reversed(list(zip(outlines, marks, strict=True))):
        draw_outline(canvas, outline, mark.color, width=line_width, is_dashed=mark.is_dashed)
    _draw_labels(
        canvas,
        [outline for outline, mark in zip(outlines, marks, strict=True) if mark.caption],
        [printable(mark.caption) for mark in marks if mark.caption],
        [mark.color for mark in marks if mark.caption],
        picture.size,
    )
    return picture


def _outlines(boxes: ArrayLike, scale: float, size: tuple[int, int]) -> list[Rectangle]:
    """Bring boxes to whole pixels of the picture, at least one pixel large and inside it."""
    boxes_xyxy = np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * scale
    limits = np.array([size[0] - 1, size[1] - 1])
    starts = np.clip(np.floor(boxes_xyxy[:, :2]), 0, limits).astype(int)
    ends = np.clip(np.ceil(boxes_xyxy[:, 2:]) - 1, starts, limits).astype(int)
    return [
        (left, top, right, bottom)
        for (left, top), (right, bottom) in zip(starts.tolist(), ends.tolist(), strict=True)
    ]


def draw_outline(
    canvas: ImageDraw.ImageDraw, outline: Rectangle, color: Color, *, width: int, is_dashed: bool
) -> None:
    """Draw a box inside its own pixels, with a thin dark line that parts it from the picture."""
    left, top, right, bottom = outline
    canvas.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=INK, width=1)
    if not is_dashed:
        canvas.rectangle(outline, outline=color, width=width)
        return
    dash = 4 * width
    for start in range(left, right + 1, 2 * dash):
        end = min(start + dash, right)
        canvas.rectangle((start, top, end, min(top + width - 1, bottom)), fill=color)
        canvas.rectangle((start, max(bottom - width + 1, top), end, bottom), fill=color)
    for start in range(top, bottom + 1, 2 * dash):
        end = min(start + dash, bottom)
        canvas.rectangle((left, start, min(left + width - 1, right), end), fill=color)
        canvas.rectangle((max(right - width + 1, left), start, right, end), fill=color)


def _draw_labels(
    canvas: ImageDraw.ImageDraw,
    outlines: Sequence[Rectangle],
    captions: Sequence[str],
    colors: Sequence[Color],
    size: tuple[int, int],
) -> None:
    """Write the captions on plates of their box's color, best first and without covering others.

    A caption without a free position goes where it would go alone, underneath the better ones.
    """
    font = _font(size)
    padding = max(1, text_height(font) // 6)
    height = text_height(font) + 2 * padding
    taken = np.empty((0, 4), dtype=np.int64)
    plates: list[tuple[Rectangle, str, Color]] = []
    for outline, caption, color in zip(outlines, captions, colors, strict=True):
        text = shortened(caption, font, size[0] - 2 * padding)
        width = math.ceil(font.getlength(text)) + 2 * padding
        positions = [
            (x, y, x + width, y + height)
            for x, y in _plate_positions(outline, (width, height), size)
        ]
        free = [position for position in positions if not _overlaps(position, taken)]
        plate = (free or positions)[0]
        taken = np.concatenate([taken, [plate]])
        plates.append((plate, text, color))
    for plate, text, color in reversed(plates):
        canvas.rectangle((plate[0], plate[1], plate[2] - 1, plate[3] - 1), fill=color)
        canvas.text(
            (plate[0] + padding, plate[1] + padding), text, fill=_text_color(color), font=font
        )


def _plate_positions(
    outline: Rectangle, plate: tuple[int, int], size: tuple[int, int]
) -> list[tuple[int, int]]:
    """Return the left top corners where a plate may stand inside the picture, best first."""
    left, top, right, bottom = outline
    width, height = plate
    lefts = [max(0, min(x, size[0] - width)) for x in (left, right + 1 - width)]
    # A plate inside a box must leave most of it to be seen.
    has_room_inside = bottom - top > 3 * height
    tops = [
        y
        for y, is_usable in (
            (top - height, True),
            (top, has_room_inside),
            (bottom + 1, True),
            (bottom + 1 - height, has_room_inside),
            ((top + bottom - height) // 2, has_room_inside),
        )
        if is_usable and 0 <= y <= size[1] - height
    ]
    return [(x, y) for y in tops or [0] for x in lefts]


def _overlaps(position: Rectangle, taken: NDArray[np.int64]) -> bool:
    left, top, right, bottom = position
    return bool(
        np.any(
            (taken[:, 0] < right)
            & (left < taken[:, 2])
            & (taken[:, 1] < bottom)
            & (top < taken[:, 3])
        )
    )


def _font(size: tuple[int, int]) -> Font:
    """Return Pillow's own font, grown with the picture's size in pixels."""
    return ImageFont.load_default(max(11, round(math.sqrt(size[0] * size[1]) / 45)))


def text_height(font: Font) -> int:
    """Return the height of a line, from above capitals to below a `g`."""
    return math.ceil(font.getbbox("Ag")[3])


def shortened(text: str, font: Font, width: int) -> str:
    """Cut a text that is wider than `width` pixels and end it with an ellipsis."""
    if len(text) <= width and font.getlength(text) <= width:
        return text
    text = text[: max(1, width)]  # no letter is narrower than a pixel, and Pillow bounds the length
    num_fitting = bisect.bisect_right(
        range(1, len(text)), width, key=lambda n: math.ceil(font.getlength(text[:n] + "…"))
    )
    return text[:num_fitting] + "…"


def _text_color(background: Color) -> Color:
    """Return black or white, whichever can be read (relative luminance of WCAG 2)."""
    linear = [(value / 255) ** 2.2 for value in background]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # Contrast (a + .05) / (b + .05) is equal against black and white at this luminance.
    return (0, 0, 0) if luminance > math.sqrt(1.05 * 0.05) - 0.05 else (255, 255, 255)
