"""Where the pictures of images go."""

import os
import time
from pathlib import Path

import pytest

from dyhead_det.prediction.outputs.paths import picture_paths
from dyhead_det.prediction.sources.files import ImageSource


def sources(folder, *names):
    return [
        ImageSource(folder / name, Path(name).relative_to(Path(name).parts[0])) for name in names
    ]


def test_pictures_keep_the_relative_folders(tmp_path):
    out = tmp_path / "out"
    paths = picture_paths(sources(tmp_path, "in/x/a.jpg", "in/b.JPEG", "in/c.tif"), out)
    assert paths == [out / "x/a.jpg", out / "b.jpg", out / "c.png"]


def test_equal_names_get_numbers_also_where_only_case_or_suffix_differ(tmp_path):
    out = tmp_path / "out"
    names = ["one/a.jpg", "two/a.jpg", "two/A.JPG", "one/b.png", "one/b.bmp", "one/x/a.jpg"]
    paths = picture_paths(sources(tmp_path, *names), out)
    expected = ["a.jpg", "a-2.jpg", "A-3.jpg", "b.png", "b-2.png", "x/a.jpg"]
    assert paths == [out / name for name in expected]


def test_a_picture_never_takes_the_place_of_an_input(tmp_path):
    images = sources(tmp_path, "in/a.jpg", "in/b.jpg")
    assert picture_paths(images, tmp_path / "in") == [
        tmp_path / "in" / "a-2.jpg",
        tmp_path / "in" / "b-2.jpg",
    ]


def test_thousands_of_images_of_one_name_take_no_time(tmp_path):
    images = sources(tmp_path, *(f"{number}/x.jpg" for number in range(6000)))
    started_at = time.process_time()
    paths = picture_paths(images, tmp_path / "out")
    assert time.process_time() - started_at < 5  # 124 s when every number was tried
    assert [path.name for path in (paths[0], paths[1], paths[-1])] == [
        "x.jpg",
        "x-2.jpg",
        "x-6000.jpg",
    ]
    assert len(set(paths)) == 6000


@pytest.mark.parametrize("stem", ["x" * 251, "\u00e4" * 125 + "x"])
def test_names_of_pictures_fit_the_file_system(tmp_path, stem):
    images = sources(tmp_path, *(f"{folder}/{stem}.bmp" for folder in "abc"))
    paths = picture_paths(images, tmp_path)
    assert all(len(os.fsencode(path.name)) <= 255 for path in paths)
    assert len(set(paths)) == 3
