"""Whatever holds an image becomes a tensor (3, H, W)."""

import numpy as np
import pytest
import torch
from PIL import Image

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
        np.concatenate([PIXELS, np.full((2, 3, 1), 9, np.uint8)], axis=2),
        Image.fromarray(PIXELS),
        EXPECTED,
        EXPECTED.contiguous(),
    ],
    ids=["array", "view", "read-only", "alpha", "pillow", "tensor", "contiguous tensor"],
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


def test_floats_up_to_one_stay_floats_of_single_precision():
    tensor = as_image(PIXELS / 255)
    assert tensor.dtype == torch.float32
    torch.testing.assert_close(tensor, EXPECTED / 255)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (PIXELS.transpose(2, 0, 1).repeat(4, axis=2), r"shape \(H, W\) or \(H, W, 1\|3\|4\)"),
        (PIXELS.reshape(-1), "shape"),
        (PIXELS[:0], "shape"),
        (torch.zeros(2, 3, 8, 8), "shape"),
        (torch.zeros(8, 8, 3), "shape"),
        (PIXELS.astype(np.int64), "uint8 in 0..255 or float"),
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
