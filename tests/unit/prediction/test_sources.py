"""Which files are meant, and where their pictures go."""

from pathlib import Path

import pytest

from dyhead_det.errors import DatasetError
from dyhead_det.prediction.sources import ImageSource, find_images, picture_paths


@pytest.fixture
def photos(tmp_path):
    """A folder with images at two depths and what is no image."""
    folder = tmp_path / "photos"
    names = ["b.jpg", "a.PNG", "deep/er/c.webp", "deep/b.jpg", "notes.txt", ".hidden.jpg"]
    for name in [*names, ".cache/d.jpg"]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (folder / "folder.jpg").mkdir()
    return folder


def relatives(images):
    return [image.relative.as_posix() for image in images]


def test_a_folder_means_all_images_below_it_sorted(photos, tmp_path):
    found = find_images([photos], except_in=tmp_path / "out")
    assert relatives(found) == ["a.PNG", "b.jpg", "deep/b.jpg", "deep/er/c.webp"]
    assert all(image.path == photos / image.relative for image in found)


def test_a_file_named_by_itself_is_taken_whatever_it_is_called(photos, tmp_path):
    found = find_images([str(photos / "notes.txt")], except_in=tmp_path / "out")
    assert relatives(found) == ["notes.txt"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["b.jpg"]),
        ("*", ["a.PNG", "b.jpg"]),
        ("**/*.jpg", ["b.jpg", "deep/b.jpg"]),
        ("deep/*.jpg", ["b.jpg"]),
        ("d??p/*.jpg", ["deep/b.jpg"]),
    ],
)
def test_a_pattern_keeps_the_folders_below_its_fixed_part(photos, tmp_path, pattern, expected):
    found = find_images([str(photos / pattern)], except_in=tmp_path / "out")
    assert relatives(found) == expected


def test_a_relative_pattern_starts_in_the_current_folder(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(photos)
    found = find_images(["*.jpg"], except_in=tmp_path / "out")
    assert found == [ImageSource(Path("b.jpg"), Path("b.jpg"))]


def test_a_file_with_brackets_in_its_name_is_no_pattern(tmp_path):
    path = tmp_path / "photo [1].jpg"
    path.touch()
    assert relatives(find_images([path], except_in=tmp_path / "out")) == ["photo [1].jpg"]


def test_a_file_that_is_meant_twice_is_taken_once(photos, tmp_path):
    found = find_images([photos / "b.jpg", photos], except_in=tmp_path / "out")
    assert relatives(found) == ["b.jpg", "a.PNG", "deep/b.jpg", "deep/er/c.webp"]


def test_earlier_results_are_not_taken_for_input(photos):
    found = find_images([photos], except_in=photos / "deep")
    assert relatives(found) == ["a.PNG", "b.jpg"]


def test_a_source_without_images_is_an_error_even_beside_others(photos, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"no image found at .*empty, .*nowhere\.jpg; name"):
        find_images(
            [photos, tmp_path / "empty", tmp_path / "nowhere.jpg"], except_in=tmp_path / "out"
        )


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
