"""Boxes around segmentations are those of pycocotools, and hostile masks are no boxes."""

import numpy as np
import pytest
from pycocotools import mask as run_lengths

from dyhead_det.data.coco.masks import box_of_segmentation


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("size_wh", [(1, 1), (7, 5), (64, 48), (3, 200)])
def test_a_run_length_mask_gives_the_box_of_pycocotools(seed, size_wh):
    width, height = size_wh
    pixels = np.random.default_rng(seed).random((height, width)) < 0.02 + seed / 20
    pixels[height // 2, width // 2] = True
    encoded = run_lengths.encode(np.asfortranarray(pixels, dtype=np.uint8))
    expected = run_lengths.toBbox(encoded).tolist()
    compressed = {"size": [height, width], "counts": encoded["counts"].decode()}
    assert box_of_segmentation(compressed, size_wh) == expected
    # Plain run lengths, column by column, the first of them of background.
    flat = np.concatenate([[False], pixels.T.ravel()])
    changes = np.flatnonzero(np.diff(flat.astype(int))).tolist()
    counts = np.diff([0, *changes, pixels.size]).tolist()
    plain = {"size": [height, width], "counts": counts}
    assert box_of_segmentation(plain, size_wh) == expected


def test_a_mask_with_runs_of_length_zero_is_bounded_by_the_others():
    # Rows 2 and 3 of the second column of three; the run without pixels lies in the first.
    mask = {"size": [5, 3], "counts": [1, 0, 6, 2, 6]}
    assert box_of_segmentation(mask, (3, 5)) == [1, 2, 1, 2]


@pytest.mark.parametrize(
    "counts",
    [
        [3, 2**32],
        [2**31] * 4,
        [2**63, 1],
        [10**30],
        [3, -1],
        [3, 4.5],
        [True, 3],
        [[1, 2]],
        [],
        [6],  # no pixel of the object
        "",
        "0o",  # ends within a number
        "oooooooooooo0",  # a number of sixty bits
        "\x00\x01",
        "\ud800",
        "é0",
        "zz",
        7,
        None,
        {"a": 1},
    ],
)
def test_run_lengths_that_are_none_give_no_box(counts):
    assert box_of_segmentation({"size": [2, 3], "counts": counts}, (3, 2)) is None


@pytest.mark.parametrize(
    "size", [[2**32, 5], [0, 0], [5, 2**32], [3, 2], [-2, -3], [2], "2,3", None, [[2], [3]], 6]
)
def test_a_mask_of_another_size_than_its_image_gives_no_box(size):
    assert box_of_segmentation({"size": size, "counts": [3, 2]}, (3, 2)) is None


@pytest.mark.parametrize(
    "polygons",
    [
        [["x", 1]],
        [[1, 2, 3]],
        [[]],
        [[1, 2]],
        [[True, 2, 3, 4]],
        [[1e999, 2, 3, 4]],
        [[10**400, 2, 3, 4]],
        [{}],
    ],
)
def test_malformed_polygons_give_no_box(polygons):
    assert box_of_segmentation(polygons, (100, 100)) is None


def test_several_polygons_have_one_box():
    polygons = [[10, 10, 30, 12, 20, 40], [1, 2, 3, 4, 2, 9]]
    assert box_of_segmentation(polygons, (100, 100)) == [1, 2, 29, 38]
