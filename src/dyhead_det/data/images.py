"""Any image file to RGB of 8 bits, (3, H, W), as a viewer shows it.

* The EXIF orientation is applied. Annotation tools differ: some annotate the picture as shown, some
  the raw pixels. When the annotated size is given it decides; where both have that size (square
  pictures, half turns) the picture is taken as shown.
* Transparency is composited on white, as viewers do; the colors under it are arbitrary.
* 16 bits are scaled to 8 by the full range (65535 becomes 255), so that one gray value means the
  same in all images. Numbers beyond that range are stretched from their least to their greatest.
* Floating point: 0..1 is scaled, 0..255 is taken as it is, anything else is stretched.
* Of several frames or pages the first one counts.
* A JPEG file that lacks only its end marker is read; all of its pixels are there.
"""

import io
import logging
import math
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.ImageFile import StubImageFile
from torch import Tensor

from dyhead_det.data.stores.store import ImageFile, open_image
from dyhead_det.errors import DatasetError
from dyhead_det.escaping import printable

logger = logging.getLogger(__name__)

# Formats that Pillow recognizes and cannot decode, or only with a program that may be missing.
_NOT_DECODED = ("EPS", "MPEG")

_WHITE = (255, 255, 255, 255)

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"

# From which on pictures of any format are made smaller before they become a tensor, where they
# will be resized anyway: 13,300 x 13,300 would take gigabytes as floating point.
LARGE_PIXELS = 2**25
_ROWS_AT_ONCE = 256

# What Pillow raises on damaged metadata, and on damaged pictures.
_METADATA_ERRORS = (SyntaxError, ValueError, TypeError, LookupError, struct.error)
_DECODER_ERRORS = (
    *_METADATA_ERRORS,
    *(OSError, EOFError, zlib.error, RuntimeError, ArithmeticError, AttributeError, AssertionError),
)

# From the EXIF orientation to what brings the stored rows and columns into that position.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class WrongSizeError(DatasetError):
    """An image has another size than its annotations are made for.

    Attributes:
        sizes: both of them, in words.
    """

    def __init__(
        self, file: ImageFile, *, size: tuple[int, int], annotated_size: tuple[int, int]
    ) -> None:
        has, wanted = (f"{width} x {height}" for width, height in (size, annotated_size))
        self.sizes = f"{has} pixels, annotated for {wanted}"
        super().__init__(
            f"{file} has {has} pixels, but its annotations are made for {wanted}: the boxes would "
            f"be wrong; use the original image, or correct its entry in the annotation file"
        )


def read_image(
    file: ImageFile,
    *,
    annotated_size: tuple[int, int] | None = None,
    resized_to: tuple[int, int] | None = None,
    warn: Callable[[str], None] = logger.warning,
) -> Tensor:
    """Read an image file.

    Args:
        file: In any format that Pillow decodes.
        annotated_size: width and height that the annotations refer to.
        resized_to: bounds of the shorter and the longer edge in pixels that the picture will be
            made to fit. A JPEG is then decoded at 1/2, 1/4 or 1/8 of its size, which is several
            times faster, and any other picture of more than 33 million pixels is made smaller by
            2 or 3; neither becomes smaller than that.
        warn: called with what is wrong with a file that is read all the same.

    Returns:
        RGB, (3, H, W) uint8.

    Raises:
        DatasetError: if the file is missing or damaged, or its size is not the annotated one.
    """
    with _named_errors(file), open_image(file) as opened:
        try:
            return _read(opened, file, annotated_size=annotated_size, resized_to=resized_to)
        except OSError:
            completed = _completed_jpeg(opened)
            if completed is None:
                raise
            image = _read(completed, file, annotated_size=annotated_size, resized_to=resized_to)
    warn(f"{file} lacks the end marker of a JPEG file; all of its pixels are there and are used")
    return image


def held(file: ImageFile) -> ImageFile:
    """Return a file to be read several times, which is fetched once where it is far away.

    Raises:
        DatasetError: if the file is missing or cannot be read.
    """
    if isinstance(file, Path):
        return file
    with _named_errors(file):
        return replace(file, content=file.store.read(file.name))


def image_size(file: ImageFile) -> tuple[int, int]:
    """Return width and height of the picture as shown, reading only the head of the file.

    Raises:
        DatasetError: if the file is missing or is no image.
    """
    with _named_errors(file), open_image(file) as opened, Image.open(opened) as image:
        return _shown_size(image)


def stored_size(file: ImageFile) -> tuple[int, int]:
    """Return width and height of the picture as stored, not yet turned; else as `image_size`."""
    with _named_errors(file), open_image(file) as opened, Image.open(opened) as image:
        return image.size


@cache
def image_suffixes() -> frozenset[str]:
    """Return the endings, as `.png`, of the formats that this Pillow decodes."""
    Image.init()
    return frozenset(
        suffix
        for suffix, name in Image.EXTENSION.items()
        if name in Image.OPEN and name not in _NOT_DECODED and not _is_stub(Image.OPEN[name][0])
    )


def shown_tensor(image: Image.Image) -> Tensor:
    """Return a Pillow image as `read_image` returns its file: turned as its metadata say."""
    return rgb_tensor(_turned(image, _turn(image)))


def rgb_tensor(image: Image.Image) -> Tensor:
    """Return a Pillow image of any mode as RGB, (3, H, W) uint8."""
    if image.mode.startswith(("I", "F")):
        gray = torch.from_numpy(_to_8_bits(np.asarray(image)))
        return gray.expand(3, -1, -1).contiguous()
    if image.has_transparency_data:
        shown = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), shown)
    if image.mode != "RGB":
        image = image.convert("RGB")
    # Plane by plane: less than half the time of an array (H, W, 3) and its transposition.
    planes = np.empty((3, image.height, image.width), dtype=np.uint8)
    for plane, band in zip(planes, "RGB", strict=True):
        values = np.frombuffer(image.tobytes("raw", band), dtype=np.uint8)
        plane[:] = values.reshape(plane.shape)
    return torch.from_numpy(planes)


def _read(
    opened: BinaryIO,
    file: ImageFile,
    *,
    annotated_size: tuple[int, int] | None,
    resized_to: tuple[int, int] | None,
) -> Tensor:
    with Image.open(opened) as image:
        turn = _turn(image)
        if annotated_size is not None and annotated_size != _shown_size(image):
            _require_size(image, file, annotated_size)
            turn = None
        reduced = image if resized_to is None else _reduced(image, resized_to)
        return rgb_tensor(_turned(reduced, turn))


def _completed_jpeg(file: BinaryIO) -> BinaryIO | None:
    """Return the file with an end marker, None unless that is all that it lacks.

    Decoders make up the pixels that are not there from whatever follows. So they are all there if
    they stay the same with the marker alone and with anything before it.
    """
    file.seek(0)
    content = file.read()
    if not content.startswith(_JPEG_START):
        return None
    content = content.rstrip(_JPEG_END[:1])  # the first half of the marker; pixels never end so
    completed = content + _JPEG_END
    padded = content + 64 * b"\xaa" + _JPEG_END
    try:
        is_whole = _decoded(completed) == _decoded(padded)
    except _DECODER_ERRORS:
        return None
    return io.BytesIO(completed) if is_whole else None


def _decoded(content: bytes) -> bytes:
    with Image.open(io.BytesIO(content)) as image:
        return image.tobytes()


@contextmanager
def _named_errors(file: ImageFile) -> Iterator[None]:
    """Let every way in which reading an image fails be a `DatasetError` that names the file."""
    try:
        # Pillow warns of odd metadata and of large pictures that it decodes all the same.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except FileNotFoundError as error:
        raise DatasetError(f"no image file at {file}") from error
    except Image.DecompressionBombError as error:
        raise DatasetError(
            f"{file} is too large to be decoded; cut it in tiles: {error}"
        ) from error
    except MemoryError as error:
        raise DatasetError(f"{file} does not fit into memory; cut it in tiles") from error
    except UnidentifiedImageError as error:
        reason = "it is empty" if _is_empty(file) else "it is damaged or of another kind"
        raise DatasetError(f"{file} cannot be read as an image, {reason}") from error
    except _DECODER_ERRORS as error:
        if isinstance(error, OSError) and error.strerror:
            raise DatasetError(f"{file} cannot be read as an image: {error.strerror}") from error
        raise DatasetError(
            f"{file} cannot be read as an image, it is damaged or of another kind: "
            f"{printable(error, max_length=200)}"
        ) from error


def _is_empty(file: ImageFile) -> bool:
    try:
        with open_image(file) as opened:
            return not opened.read(1)
    except OSError:  # meanwhile it is gone
        return False


def _is_stub(factory: object) -> bool:
    return isinstance(factory, type) and issubclass(factory, StubImageFile)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Return what the EXIF orientation asks for."""
    if image.format == "TIFF":
        image.load()  # Pillow turns these itself while it loads them
        return None
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _METADATA_ERRORS:  # the picture may be sound all the same
        return None


def _turned(image: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    return image if turn is None else image.transpose(turn)


def _shown_size(image: Image.Image) -> tuple[int, int]:
    turn, (width, height) = _turn(image), image.size
    is_transposed = turn in (_TURNS[5], _TURNS[6], _TURNS[7], _TURNS[8])
    return (height, width) if is_transposed else (width, height)


def _require_size(image: Image.Image, file: ImageFile, annotated_size: tuple[int, int]) -> None:
    if annotated_size != image.size:
        raise WrongSizeError(file, size=image.size, annotated_size=annotated_size)


def _reduced(image: Image.Image, resized_to: tuple[int, int]) -> Image.Image:
    """Make a picture smaller by a whole factor, not smaller than what it is resized to.

    JPEG files are decoded so, at next to no cost; others only where they are large, and by no more
    than makes them small enough.
    """
    factor = _whole_factor(image, resized_to)
    if factor > 1:  # Pillow takes the next lower of 2, 4 and 8
        width, height = (max(1, edge // factor) for edge in image.size)
        image.draft(None, (width, height))
    to_bound = math.ceil(math.sqrt(image.width * image.height / LARGE_PIXELS))
    factor = min(_whole_factor(image, resized_to), to_bound)
    if factor == 1:
        return image
    if image.mode.startswith("I"):
        return image.convert("I").reduce(factor)
    if image.has_transparency_data:
        return image.convert("RGBA").reduce(factor)
    return (image if image.mode in ("F", "L", "RGB") else image.convert("RGB")).reduce(factor)


def _whole_factor(image: Image.Image, resized_to: tuple[int, int]) -> int:
    short_edge, long_edge = resized_to
    return max(1, int(max(min(image.size) / short_edge, max(image.size) / long_edge)))


def _to_8_bits(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Scale gray values of 16 or 32 bits or of floating point, (H, W), to 0..255."""
    blocks = [values[row : row + _ROWS_AT_ONCE] for row in range(0, len(values), _ROWS_AT_ONCE)]
    low = min(float(_finite(block).min()) for block in blocks)
    high = max(float(_finite(block).max()) for block in blocks)
    full_range = (1.0, 255.0) if values.dtype.kind == "f" else (65535.0,)
    fitting = [top for top in full_range if low >= 0 and high <= top]
    if fitting:
        low, high = 0, fitting[0]
    scale = 255 / ((high - low) or 1.0)  # a flat picture has nothing to stretch
    scaled = np.empty(values.shape, dtype=np.uint8)
    for row, block in zip(range(0, len(values), _ROWS_AT_ONCE), blocks, strict=True):
        scaled[row : row + _ROWS_AT_ONCE] = np.rint((_finite(block) - low) * scale)
    return scaled


def _finite(values: NDArray[np.generic]) -> NDArray[np.float64]:
    return np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0)
