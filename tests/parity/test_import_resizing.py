"""Resizing as the originals did it, against a loop over pixels and against Pillow."""

import numpy as np
import published_images as reference
import pytest
import torch
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from dyhead_det.models.compat.resize_uint8 import (
    resize_by_the_formula_of_pil,
    resize_like_cv2,
    resize_like_pil,
)
from dyhead_det.models.resized_size import torchvision_size

SIZES = [(37, 53), (61, 40), (18, 26), (74, 106), (5, 200), (1, 1)]


@pytest.mark.parametrize("size_hw", SIZES)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (resize_like_cv2, reference.resize_cv2),
        (resize_like_pil, reference.resize_pil),
        (resize_by_the_formula_of_pil, reference.resize_pil),
    ],
)
def test_pixels_are_the_same(ours, theirs, size_hw):
    image = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    resized = ours(torch.from_numpy(image).permute(2, 0, 1), size_hw).permute(1, 2, 0)
    assert np.array_equal(resized.numpy(), theirs(image, size_hw))


def test_enlarged_pixels_are_opencvs():
    # Recorded from cv2.resize(..., interpolation=cv2.INTER_LINEAR) of OpenCV 4.10.
    image = np.array([[0, 100, 255], [50, 7, 200]], dtype=np.uint8)
    tensor = torch.from_numpy(image).expand(3, -1, -1)
    assert resize_like_cv2(tensor, (3, 5))[0].tolist() == [
        [0, 40, 100, 193, 255],
        [25, 36, 54, 158, 228],
        [50, 33, 7, 123, 200],
    ]


def test_sizes_are_torchvisions():
    transform = GeneralizedRCNNTransform(64, 96, [0, 0, 0], [1, 1, 1]).eval()
    for height in range(20, 130, 7):
        for width in range(20, 130):
            resized, _ = transform.resize(torch.zeros(3, height, width))
            size_hw = torchvision_size(height, width, short_edge=64, long_edge=96)
            assert size_hw == tuple(resized.shape[1:])
