"""Which files are meant."""

import os
import socket
from pathlib import Path

import pytest

from dyhead_det.errors import DatasetError
from dyhead_det.prediction.outputs.paths import picture_paths
from dyhead_det.prediction.sources.files import ImageSource, find_images


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
    (photos / "notes").touch()
    found = find_images([str(photos / "notes")], except_in=tmp_path / "out")
    assert relatives(found) == ["notes"]


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


def test_every_kind_of_image_that_pillow_decodes_is_taken(tmp_path):
    names = ["a.gif", "b.ppm", "c.jp2", "d.jfif", "e.TIF", "f.tga"]
    others = ["a.h5", "b.eps", "c.mpg", "d.json", "e"]  # stubs, and what needs another program
    for name in names + others:
        (tmp_path / name).touch()
    assert relatives(find_images([tmp_path], except_in=tmp_path / "out")) == names


def test_what_is_left_out_of_a_folder_is_counted_in_one_line(photos, tmp_path, caplog):
    (photos / "more.txt").touch()
    (photos / "README").touch()
    with caplog.at_level("INFO"):
        find_images([photos], except_in=tmp_path / "out")
    (record,) = caplog.records
    assert record.getMessage() == "left out as no images by their endings: 3 (.txt, none)"


@pytest.fixture
def linked(tmp_path):
    """A folder with links to a folder outside, to itself, to a folder inside and to nothing."""
    for name in ("in/a.png", "in/z/b.png", "other/c.png", "other/deep/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for link, goal in {"linked": "other", "circle": "in", "c": "in/z", "nothing": "no"}.items():
        (tmp_path / "in" / link).symlink_to(tmp_path / goal)
    (tmp_path / "other" / "back").symlink_to(tmp_path / "in")
    return tmp_path / "in"


@pytest.mark.parametrize("source", [".", "**/*", "**/*.png", "**"])
def test_linked_folders_are_entered_once(linked, tmp_path, source):
    found = find_images([linked / source], except_in=tmp_path / "out")
    assert relatives(found) == ["a.png", "linked/c.png", "linked/deep/d.png", "z/b.png"]


@pytest.mark.parametrize("source", [".", "**", "*"])
def test_a_link_that_leads_in_a_circle_costs_no_other_image(linked, tmp_path, source):
    (linked / "loop.png").symlink_to("loop.png")
    found = find_images([linked / source], except_in=tmp_path / "out")
    assert "a.png" in relatives(found)
    assert "loop.png" not in relatives(found)


def test_results_in_a_link_that_leads_in_a_circle_are_no_input(photos, tmp_path):
    (tmp_path / "out").symlink_to("out")
    images = find_images([photos], except_in=tmp_path / "out" / "pictures")
    assert len(picture_paths(images, tmp_path / "out" / "pictures")) == len(images) > 0


def test_a_pattern_of_any_depth_has_parts_before_and_behind(photos, tmp_path):
    found = find_images([str(photos / "d*" / "**" / "?.webp")], except_in=tmp_path / "out")
    assert relatives(found) == ["deep/er/c.webp"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("", "an empty name"),
        ("a\0b", r"a\\x00b"),
        ("x" * 5000, "too long"),
        ("~nobody/x", "~nobody"),
    ],
)
def test_a_name_that_can_be_none_is_a_line(tmp_path, source, reason):
    with pytest.raises(DatasetError, match=reason) as error:
        find_images([source], except_in=tmp_path)
    assert len(str(error.value)) < 1000
    assert str(error.value).isprintable()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_what_would_never_end_is_no_image(photos, tmp_path):
    os.mkfifo(photos / "pipe.png")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(photos / "s.png"))
    for source, kind in [("pipe.png", "pipe"), ("s.png", "socket"), ("/dev/zero", "device")]:
        with pytest.raises(DatasetError, match=rf"\(a {kind}, not a file\)"):
            find_images([photos / source], except_in=tmp_path / "out")
    listener.close()
    found = find_images([photos], except_in=tmp_path / "out")
    assert relatives(found) == ["a.PNG", "b.jpg", "deep/b.jpg", "deep/er/c.webp"]


def test_a_text_file_is_a_list_of_images(tmp_path):
    """Names that are not there cost no other, and names may hold whatever names hold."""
    listing = tmp_path / "list.txt"
    outside = tmp_path.parent / "z.jpg"
    listing.write_bytes(
        f"\ufeffa/b [1].jpg\r\n\n../c.jpg\n{outside}\nno\udcff.png\n".encode(
            "utf-8", "surrogateescape"
        )
    )
    images = find_images([listing], except_in=tmp_path / "out")
    assert [image.name for image in images] == [
        *("a/b [1].jpg", "../c.jpg", outside.as_posix(), "no\udcff.png")
    ]
    assert relatives(images) == ["a/b [1].jpg", "c.jpg", "z.jpg", "no\udcff.png"]


def test_an_empty_list_is_no_image(tmp_path):
    (tmp_path / "list.txt").write_text("\n \n")
    with pytest.raises(DatasetError, match=r"no image found at .*list\.txt"):
        find_images([tmp_path / "list.txt"], except_in=tmp_path / "out")
