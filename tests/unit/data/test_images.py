"""Every kind of image file becomes RGB of 8 bits, or an error that names the file."""

import io
import os
import struct
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from dyhead_det.data import images
from dyhead_det.data.images import (
    image_size,
    image_suffixes,
    read_image,
    rgb_tensor,
    stored_size,
)
from dyhead_det.errors import DatasetError

ORIENTATION = 0x0112


@pytest.fixture
def photo():
    """A smooth picture, (H, W, 3), that lossy formats keep nearly unchanged."""
    ys, xs = np.mgrid[:40, :60]
    return np.stack([xs * 4, ys * 6, 255 - xs * 4], axis=-1).astype(np.uint8)


def as_tensor(pixels):
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff"])
def test_lossless_files_come_back_exactly(tmp_path, photo, suffix):
    path = tmp_path / f"photo{suffix}"
    Image.fromarray(photo).save(path)
    assert torch.equal(read_image(path), as_tensor(photo))
    assert suffix in image_suffixes()


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
def test_lossy_files_come_back_nearly(tmp_path, photo, suffix):
    path = tmp_path / f"photo{suffix}"
    Image.fromarray(photo).save(path, quality=95)
    image = read_image(path)
    assert image.dtype == torch.uint8
    assert image.is_contiguous()
    # Half the color resolution is lost in the file: a few levels.
    assert (image.int() - as_tensor(photo).int()).abs().float().mean() < 3
    assert suffix in image_suffixes()


@pytest.mark.parametrize("mode", ["1", "L", "P", "YCbCr", "HSV"])
def test_other_color_spaces_become_what_pillow_converts_them_to(photo, mode):
    image = Image.fromarray(photo).convert(mode)
    assert torch.equal(rgb_tensor(image), as_tensor(np.array(image.convert("RGB"))))


def test_cmyk_jpeg_keeps_its_colors(tmp_path):
    path = tmp_path / "print.jpg"
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(path, quality=100)  # no cyan: red
    red, green, blue = read_image(path).float().mean(dim=(1, 2)).tolist()
    assert red > 250
    assert max(green, blue) < 5


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_shows_white_whatever_color_lies_under_it(mode):
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    assert rgb_tensor(image.convert(mode)).tolist() == [[[0, 255]]] * 3


def test_half_transparency_is_mixed_with_white():
    # 100 * 128/255 + 255 * 127/255 = 177.2
    image = Image.new("RGBA", (1, 1), (100, 100, 100, 128))
    assert rgb_tensor(image)[:, 0, 0].tolist() == pytest.approx([177] * 3, abs=1)


def test_palette_with_transparent_entries_shows_white(tmp_path):
    path = tmp_path / "palette.png"
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.save(path, transparency=bytes([255, 0]))
    assert read_image(path)[:, 0, 0].tolist() == [10, 20, 30]
    assert read_image(path)[:, 0, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, suffix):
    path = tmp_path / f"deep{suffix}"
    Image.fromarray(np.array([[0, 257, 25700, 65535]], dtype=np.uint16)).save(path)
    assert read_image(path).tolist() == [[[0, 1, 100, 255]]] * 3


def test_sixteen_bit_numbers_in_a_wider_type_are_scaled_alike():
    image = Image.fromarray(np.array([[0, 25700, 65535]], dtype=np.int32))
    assert rgb_tensor(image)[0].tolist() == [[0, 100, 255]]


def test_wider_numbers_are_stretched_between_their_extremes():
    image = Image.fromarray(np.array([[-100_000, 0, 100_000]], dtype=np.int32))
    assert rgb_tensor(image)[0].tolist() == [[0, 128, 255]]


@pytest.mark.parametrize(
    ("values", "gray"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.4, 255.0], [0, 100, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([0.0, 500.0, 1000.0], [0, 128, 255]),
        ([0.0, 0.0, 0.0], [0, 0, 0]),
        ([5000.0, 5000.0, 5000.0], [0, 0, 0]),
        ([float("nan"), 0.5, float("inf")], [0, 128, 0]),
    ],
)
def test_floating_point_files_are_brought_to_eight_bits(tmp_path, values, gray):
    path = tmp_path / "float.tif"
    Image.fromarray(np.array([values], dtype=np.float32)).save(path)
    assert read_image(path).tolist() == [[gray]] * 3


def test_big_endian_sixteen_bits_are_read_in_their_own_order(tmp_path):
    path = tmp_path / "big.tif"
    pixels = struct.pack(">2H", 25700, 65535)
    Image.frombytes("I;16B", (2, 1), pixels).save(path)
    assert read_image(path)[0].tolist() == [[100, 255]]


def with_orientation(path, photo, orientation):
    image = Image.fromarray(photo)
    exif = image.getexif()
    exif[ORIENTATION] = orientation
    image.save(path, exif=exif)
    return path


# What a viewer does with the stored rows and columns, by the EXIF standard (tag 0x0112).
SHOWN = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, k=-1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored),
}


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
@pytest.mark.parametrize("orientation", list(SHOWN))
def test_a_photo_is_turned_as_it_is_shown(tmp_path, photo, orientation, suffix):
    path = with_orientation(tmp_path / f"turned{suffix}", photo, orientation)
    shown = SHOWN[orientation](photo)
    image = read_image(path)
    assert image.shape[1:] == shown.shape[:2]
    tolerance = 3 if suffix in (".jpg", ".webp") else 0
    assert (image.int() - as_tensor(shown).int()).abs().float().mean() <= tolerance
    height, width = shown.shape[:2]
    assert image_size(path) == (width, height)
    assert read_image(path, annotated_size=(width, height)).shape == image.shape


def test_damaged_metadata_do_not_spoil_a_sound_picture(tmp_path, photo):
    path = tmp_path / "odd.jpg"
    Image.fromarray(photo).save(path, exif=b"Exif\0\0nonsense")
    assert read_image(path).shape == (3, 40, 60)


def test_the_annotated_size_decides_whether_to_turn(tmp_path, photo):
    path = with_orientation(tmp_path / "turned.png", photo, 6)
    as_shown = read_image(path, annotated_size=(40, 60))
    as_stored = read_image(path, annotated_size=(60, 40))
    assert torch.equal(as_shown, as_tensor(np.rot90(photo, k=-1)))
    assert torch.equal(as_stored, as_tensor(photo))


def test_a_picture_is_taken_as_shown_where_the_size_cannot_decide(tmp_path, photo):
    path = with_orientation(tmp_path / "half_turn.png", photo, 3)
    assert torch.equal(read_image(path, annotated_size=(60, 40)), as_tensor(photo[::-1, ::-1]))


def test_another_size_than_annotated_names_file_and_both_sizes(tmp_path, photo):
    path = tmp_path / "resized.png"
    Image.fromarray(photo).save(path)
    with pytest.raises(DatasetError, match=r"resized.png has 60 x 40 pixels.*640 x 480"):
        read_image(path, annotated_size=(640, 480))


@pytest.mark.parametrize(
    ("resized_to", "decoded_hw"),
    [
        ((400, 9999), (401, 601)),  # sizes are rounded up
        ((401, 9999), (801, 1201)),  # half would be 400.5
        ((100, 9999), (101, 151)),
        ((9999, 300), (201, 301)),  # the longer edge binds: 1201 / 300 = 4.003
        ((9999, 301), (401, 601)),
        ((1, 1), (101, 151)),
        ((2000, 9999), (801, 1201)),
    ],
)
def test_a_large_jpeg_is_decoded_smaller_but_never_below_its_later_size(
    tmp_path, photo, resized_to, decoded_hw
):
    path = tmp_path / "large.jpg"
    Image.fromarray(photo).resize((1201, 801)).save(path, quality=95)
    assert read_image(path, resized_to=resized_to).shape == (3, *decoded_hw)


def test_a_reduced_jpeg_shows_the_same(tmp_path, photo):
    path = tmp_path / "large.jpg"
    large = Image.fromarray(photo).resize((1201, 801))
    large.save(path, quality=95)
    half = read_image(path, resized_to=(400, 9999))
    expected = as_tensor(np.array(large.reduce(2)))
    assert (half.int() - expected.int()).abs().float().mean() < 3


def test_a_narrow_jpeg_is_reduced_as_far_as_its_width_allows(tmp_path):
    path = tmp_path / "strip.jpg"
    Image.new("RGB", (3, 800)).save(path)
    assert read_image(path, resized_to=(9999, 100)).shape == (3, 400, 2)


def test_other_formats_are_never_decoded_smaller(tmp_path, photo):
    path = tmp_path / "photo.png"
    Image.fromarray(photo).save(path)
    assert read_image(path, resized_to=(5, 5)).shape == (3, 40, 60)


def test_the_first_page_counts(tmp_path, photo):
    path = tmp_path / "pages.tif"
    pages = [Image.fromarray(photo), Image.new("RGB", (9, 9))]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    assert torch.equal(read_image(path), as_tensor(photo))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"no image file at .*gone.jpg"):
        read_image(tmp_path / "gone.jpg")


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\xff\xd8\xff"])
def test_a_file_of_another_kind_is_named(tmp_path, content):
    path = tmp_path / "notes.jpg"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"notes.jpg cannot be read as an image"):
        read_image(path)


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(DatasetError, match="cannot be read as an image"):
        read_image(tmp_path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".bmp"])
def test_a_truncated_file_is_named(tmp_path, photo, suffix):
    whole = io.BytesIO()
    formats = {".jpg": "JPEG", ".tif": "TIFF"}
    noise = np.random.default_rng(0).integers(0, 256, photo.shape, dtype=np.uint8)
    Image.fromarray(noise).save(whole, format=formats.get(suffix, suffix[1:]))
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    with pytest.raises(DatasetError, match=rf"cut{suffix} cannot be read as an image"):
        read_image(path)


def test_a_decompression_bomb_is_refused(tmp_path, photo, monkeypatch):
    path = tmp_path / "bomb.png"
    Image.fromarray(photo).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow refuses twice as many
    with pytest.raises(DatasetError, match=r"bomb.png is too large to be decoded"):
        read_image(path)


def test_large_but_allowed_pictures_are_read_without_a_warning(tmp_path, photo, monkeypatch):
    path = tmp_path / "large.png"
    Image.fromarray(photo).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path).shape == (3, 40, 60)


def test_every_suffix_is_one_that_pillow_opens():
    assert image_suffixes() <= Image.registered_extensions().keys()
    assert not image_suffixes() & {".pdf", ".eps", ".h5", ".hdf", ".grib", ".bufr", ".mpg", ".mpeg"}


def jpeg(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", quality=90, **options)
    assert file.getvalue().endswith(b"\xff\xd9")
    return file.getvalue()


@pytest.mark.parametrize("num_lacking", [1, 2])  # half of the marker, all of it
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_a_jpeg_that_lacks_only_its_end_marker_is_read_with_a_warning(
    tmp_path, photo, options, num_lacking
):
    content, said = jpeg(photo, **options), []
    (tmp_path / "whole.jpg").write_bytes(content)
    (tmp_path / "tail.jpg").write_bytes(content[:-num_lacking])
    whole = read_image(tmp_path / "whole.jpg", warn=said.append)
    assert said == []
    assert torch.equal(read_image(tmp_path / "tail.jpg", warn=said.append), whole)
    (message,) = said
    assert "tail.jpg lacks the end marker" in message


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize("share_left", [0.6, 0.9, 0.98])
def test_a_jpeg_that_lacks_pixels_is_damaged(tmp_path, options, share_left):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = jpeg(noise, **options)
    (tmp_path / "cut.jpg").write_bytes(content[: int(len(content) * share_left)])
    with pytest.raises(DatasetError, match=r"cut.jpg cannot be read as an image, it is damaged"):
        read_image(tmp_path / "cut.jpg")


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "endless.jpg").symlink_to("/dev/zero")
    for read in (read_image, image_size):
        for name in ("pipe.jpg", "endless.jpg"):
            with pytest.raises(DatasetError, match=rf"{name} cannot be read as an image: Is a nam"):
                read(tmp_path / name)


def test_an_empty_file_is_called_empty(tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"empty.jpg cannot be read as an image, it is empty"):
        read_image(tmp_path / "empty.jpg")


def test_control_characters_in_a_decoders_message_are_escaped(tmp_path, monkeypatch):
    def fail(*_):
        raise ValueError("odd chunk \x1b[2J\n")

    monkeypatch.setattr(Image, "open", fail)
    (tmp_path / "x.png").write_bytes(b"x")
    with pytest.raises(DatasetError) as caught:
        read_image(tmp_path / "x.png")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "I;16", "F", "CMYK", "1"])
def test_a_large_picture_of_any_mode_is_made_smaller_where_it_will_be_resized(
    tmp_path, monkeypatch, mode
):
    monkeypatch.setattr(images, "LARGE_PIXELS", 10_000)
    path = tmp_path / "large.tif"
    Image.fromarray(np.full((250, 300), 200, dtype=np.uint8)).convert(mode).save(path)
    whole = read_image(path)
    assert whole.shape == (3, 250, 300)
    # 75,000 pixels: a third of each side is the least that makes them fewer than 10,000.
    smaller = read_image(path, resized_to=(40, 60))
    assert smaller.shape == (3, 84, 100)
    assert smaller.float().mean() == pytest.approx(whole.float().mean(), abs=1)
    # Never smaller than what it is resized to: half of 250 is still larger than 100, a third not.
    assert read_image(path, resized_to=(100, 999)).shape == (3, 125, 150)
    assert read_image(path, resized_to=(200, 999)).shape == (3, 250, 300)


def test_deep_pictures_are_scaled_in_blocks_of_rows_as_a_whole():
    values = np.random.default_rng(0).integers(0, 100_000, (700, 3)).astype(np.int32)
    gray = (values - values.min()) * (255 / (values.max() - values.min()))
    expected = np.rint(gray).astype(np.uint8)
    assert np.array_equal(rgb_tensor(Image.fromarray(values))[0].numpy(), expected)


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_the_stored_size_is_that_of_the_rows_and_columns_in_the_file(tmp_path, photo, orientation):
    assert stored_size(with_orientation(tmp_path / "x.jpg", photo, orientation)) == (60, 40)
