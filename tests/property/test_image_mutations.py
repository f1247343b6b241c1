"""Whatever bytes an image file holds, it is read or refused in one line that names it."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dyhead_det.data.images import image_size, read_image, stored_size
from dyhead_det.errors import DatasetError
from dyhead_det.escaping import printable

MODES = {
    "JPEG": ("RGB", "L", "CMYK"),
    "PNG": ("RGB", "P", "RGBA", "I;16", "1"),
    "TIFF": ("RGB", "F", "I;16"),
    "GIF": ("P",),
    "WEBP": ("RGB", "RGBA"),
    "BMP": ("RGB", "P"),
    "PPM": ("RGB", "L"),
}


def encoded(format_name, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    image, file = Image.fromarray(pixels).convert(mode), io.BytesIO()
    exif = image.getexif()
    exif[0x0112] = 6
    options = {"exif": exif} if format_name in ("JPEG", "PNG", "WEBP") else {}
    image.save(file, format=format_name, **options)
    return file.getvalue()


FILES = [encoded(name, mode) for name, modes in MODES.items() for mode in modes]
PIECES = st.binary(max_size=8) | st.sampled_from(
    [b"", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x01", b"\x1b[2J"]
)


@st.composite
def damaged_files(draw):
    content = bytearray(draw(st.sampled_from(FILES)))
    for _ in range(draw(st.integers(1, 5))):
        # Most of what a decoder believes stands at the beginning.
        start = draw(st.integers(0, min(120, len(content))) | st.integers(0, len(content)))
        content[start : start + draw(st.integers(0, 8))] = draw(PIECES)
    if draw(st.booleans()):
        del content[draw(st.integers(0, len(content))) :]
    return bytes(content)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("images") / "damaged.img"


@given(content=damaged_files())
def test_a_damaged_image_is_read_or_refused_in_one_line(path, content):
    path.write_bytes(content)
    for read in (
        lambda: read_image(path, warn=lambda _: None),
        lambda: read_image(path, resized_to=(4, 4), warn=lambda _: None),
        lambda: image_size(path),
        lambda: stored_size(path),
    ):
        said = ""
        try:
            read()
        except DatasetError as error:
            said = str(error)
        assert said == printable(said)
        assert not said or str(path) in said
