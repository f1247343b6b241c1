"""Copies of pictures are found after compression and scaling; pictures that differ are not."""

import time

import numpy as np
import pytest
import torch
from PIL import Image

from dyhead_det.data.images import read_image
from dyhead_det.inspection.same_pictures import (
    Fingerprint,
    equal_files,
    fingerprint,
    near_duplicates,
)


def picture(seed, size=96):
    """Colored noise of low frequency, as unlike any other one as photographs are."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)


def prints(folder, *pictures, **options):
    made = []
    for number, image in enumerate(pictures):
        path = folder / f"{number}.{'jpg' if options else 'png'}"
        image.save(path, **options)
        made.append(fingerprint(path, read_image(path)))
    return made


def test_equal_bytes_are_equal_files_and_no_near_duplicates(tmp_path):
    found = prints(tmp_path, picture(0), picture(1), picture(0))
    assert equal_files(found) == [[0, 2]]
    assert near_duplicates(found) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.resize((48, 48), Image.Resampling.BILINEAR),
        lambda image: image.resize((200, 150), Image.Resampling.BICUBIC),
        lambda image: image.point(lambda value: min(255, int(1.1 * value))),
    ],
    ids=["half", "stretched", "brighter"],
)
def test_a_changed_copy_is_found_among_others(tmp_path, change):
    found = prints(tmp_path, *map(picture, range(20)), change(picture(3)))
    found += prints(tmp_path, picture(7), quality=50)
    assert equal_files(found) == []
    assert near_duplicates(found) == [[3, 20], [7, 21]]


def test_flat_pictures_resemble_nothing(tmp_path):
    flat = [Image.new("RGB", (64, 64), (value, value, value)) for value in (0, 128, 129)]
    assert near_duplicates(prints(tmp_path, *flat)) == []


def test_a_row_of_pictures_each_like_the_next_is_one_group(tmp_path):
    first = np.asarray(picture(0), dtype=float)
    other = np.asarray(picture(1), dtype=float)
    mixed = [Image.fromarray((first + t * (other - first)).astype(np.uint8)) for t in (0, 0.1, 0.2)]
    assert near_duplicates(prints(tmp_path, *mixed)) == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("least", "is_alike"), [(1000, False), (100, True)], ids=["all unlike", "all with one hash"]
)
def test_the_time_does_not_grow_with_the_square_of_the_number(least, is_alike):
    def elapsed(number):
        chance = np.random.default_rng(0)
        hashes = chance.integers(0, 2, (number, 64)).astype(bool)
        copies = chance.integers(0, 256, (number, 768), dtype=np.uint8)
        some = [
            Fingerprint(bytes([i % 256, i // 256]), hashes[0 if is_alike else i], copies[i])
            for i in range(number)
        ]
        started_at = time.process_time()
        assert near_duplicates(some) == []
        return time.process_time() - started_at

    elapsed(least)
    assert elapsed(4 * least) < 10 * max(elapsed(least), 0.02)  # the square would be 16 times


def test_photographs_of_blood_hold_one_pair(real_data):
    folder = real_data / "bccd" / "images"
    paths = sorted(folder.glob("*.jpg"))[:60]
    found = [fingerprint(path, read_image(path, resized_to=(64, 64))) for path in paths]
    names = [[paths[i].stem[-3:] for i in group] for group in near_duplicates(found)]
    assert names == [["037", "038"]]


def test_a_fingerprint_does_not_depend_on_the_scale_that_an_image_is_read_at(tmp_path):
    picture(0, size=640).save(tmp_path / "a.jpg", quality=95)
    whole, small = (
        fingerprint(tmp_path / "a.jpg", read_image(tmp_path / "a.jpg", resized_to=size))
        for size in (None, (64, 64))
    )
    assert whole.digest == small.digest
    assert int((whole.hash != small.hash).sum()) <= 8
    assert torch.from_numpy(whole.copy.astype(float) - small.copy).abs().max() <= 4
