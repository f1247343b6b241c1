"""Whatever holds an image becomes a tensor (3, H, W)."""

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageOps

from dyhead_det.prediction.images import as_image

PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)  # (H, W, 3)
EXPECTED = torch.from_numpy(PIXELS).permute(2, 0, 1)


def read_only(array):
    array = array.copy()
    array.setflags(write=False)
    return array


@pytest.mark.parametrize(
    "image",
    [
        PIXELS,
        PIXELS[..., ::-1].copy()[..., ::-1],  # BGR turned to RGB by a view
        read_only(PIXELS),
        np.concatenate([PIXELS, np.full((2, 3, 1), 255, np.uint8)], axis=2),
        Image.fromarray(PIXELS),
        EXPECTED,
        EXPECTED.contiguous(),
    ],
    ids=["array", "view", "read-only", "opaque", "pillow", "tensor", "contiguous tensor"],
)
def test_color_images_keep_their_values(image):
    tensor = as_image(image)
    assert tensor.dtype == torch.uint8
    assert torch.equal(tensor, EXPECTED)


@pytest.mark.parametrize(
    "image",
    [
        PIXELS[..., 0],
        PIXELS[..., :1],
        Image.fromarray(PIXELS[..., 0]),
        EXPECTED[0],
        EXPECTED[:1],
    ],
    ids=["array", "one channel", "pillow", "tensor", "one-channel tensor"],
)
def test_gray_images_get_three_equal_channels(image):
    assert torch.equal(as_image(image), EXPECTED[:1].repeat(3, 1, 1))


def test_a_file_is_read(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(PIXELS).save(path)
    assert torch.equal(as_image(path), EXPECTED)
    assert torch.equal(as_image(str(path)), EXPECTED)


def picture(mode, seed=0):
    """Return a Pillow image of a mode with all kinds of values in it."""
    rng = np.random.default_rng(seed)
    if mode == "I;16":
        return Image.fromarray(rng.integers(65536, size=(5, 7), dtype=np.uint16))
    if mode == "P":
        return picture("RGB").quantize(8)
    channels = {"1": 1, "L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]
    values = rng.integers(256, size=(5, 7, channels), dtype=np.uint8)
    if mode == "1":
        return Image.fromarray(values[..., 0]).convert("1")
    return Image.fromarray(values[..., 0] if channels == 1 else values)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "I;16"])
def test_file_pillow_image_array_and_tensor_of_a_picture_are_one(tmp_path, mode):
    path = tmp_path / "picture.png"
    picture(mode).save(path)
    from_file = as_image(path)
    assert from_file.shape == (3, 5, 7)
    with Image.open(path) as image:
        array = np.asarray(image)
        assert torch.equal(as_image(image), from_file)
    assert torch.equal(as_image(array), from_file)
    tensor = torch.from_numpy(array.copy())
    planes = tensor if tensor.ndim == 2 else tensor.permute(2, 0, 1)
    assert torch.equal(as_image(planes), from_file)


def test_colors_of_16_bits_are_read_as_pillow_reads_their_file():
    high = np.array([[[0, 255, 256], [65535, 32768, 511]]], dtype=np.uint16)
    assert as_image(high).tolist() == [[[0, 255]], [[0, 128]], [[1, 1]]]


def test_the_order_of_bytes_in_memory_does_not_matter():
    values = np.random.default_rng(0).integers(65536, size=(5, 7), dtype=np.uint16)
    assert torch.equal(as_image(values.astype(">u2")), as_image(values))
    assert torch.equal(as_image(values.astype("<u2")), as_image(values))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_floats_with_opacity_differ_from_8_bits_by_rounding_only(mode):
    array = np.asarray(picture(mode))
    floats = as_image(array / 255)
    assert floats.dtype == torch.float32
    torch.testing.assert_close(floats * 255, as_image(array).float(), atol=1.01, rtol=0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_the_orientation_of_a_photo_is_heeded_however_it_comes(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / f"photo{suffix}"
    picture("RGB").save(path, exif=exif)
    from_file = as_image(path)
    assert from_file.shape == ((3, 7, 5) if orientation > 4 else (3, 5, 7))
    with Image.open(path) as image:
        assert torch.equal(as_image(image), from_file)
    with Image.open(path) as image:
        turned = ImageOps.exif_transpose(image)
        assert torch.equal(as_image(turned), from_file)
        assert torch.equal(as_image(np.asarray(turned)), from_file)


def test_a_palette_is_resolved(tmp_path):
    path = tmp_path / "picture.gif"
    picture("P").save(path)
    with Image.open(path) as image:
        assert torch.equal(as_image(image), as_image(path))
        assert torch.equal(as_image(np.asarray(image.convert("RGB"))), as_image(path))


def test_floats_up_to_one_stay_floats_of_single_precision():
    tensor = as_image(PIXELS / 255)
    assert tensor.dtype == torch.float32
    torch.testing.assert_close(tensor, EXPECTED / 255)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (PIXELS.transpose(2, 0, 1).repeat(4, axis=2), r"shape \(H, W\) or \(H, W, 1\|2\|3\|4\)"),
        (PIXELS.reshape(-1), "shape"),
        (PIXELS[:0], "shape"),
        (torch.zeros(2, 3, 8, 8), "shape"),
        (torch.zeros(8, 8, 3), "shape"),
        (PIXELS.astype(np.int64), "uint8, uint16 or float in .*, not int64"),
        (PIXELS.astype(np.complex64), "not complex64"),
        (Image.new("RGB", (0, 3)), "at least one pixel"),
        (PIXELS.astype(np.float32), r"values in \[0, 1\]"),
        (np.full((2, 2), np.nan), r"values in \[0, 1\]"),
        (EXPECTED.float() - 1, r"values in \[0, 1\]"),
    ],
)
def test_what_is_no_image_is_refused(image, message):
    with pytest.raises(ValueError, match=message):
        as_image(image)


def test_other_things_are_refused():
    with pytest.raises(TypeError, match="not NoneType"):
        as_image(None)
