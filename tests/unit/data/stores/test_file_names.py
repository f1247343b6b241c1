"""Names are found by bisection, with or without the folders that all share."""

import pickle

import pytest

from dyhead_det.data.coco.packed_text import PackedText
from dyhead_det.data.stores.file_names import FileNames


def file_names(*names):
    return FileNames(PackedText.pack(sorted(names)))


def test_a_name_is_found_with_any_part_of_the_folders_that_all_share():
    names = file_names("data/images/a.png", "data/images/b.png", "data/images/c/a.png")
    for prefix in ("data/images/", "images/", ""):
        found = [names.rows(f"{prefix}{name}") for name in ("a.png", "b.png", "c/a.png")]
        assert found == [range(0, 1), range(1, 2), range(2, 3)]
    assert not names.rows("a")
    assert not names.rows("ages/a.png")


def test_the_whole_name_goes_before_one_below_a_folder():
    assert file_names("a/a/x.png", "a/x.png").rows("a/x.png") == range(1, 2)


def test_files_of_one_name_are_all_found():
    names = file_names("a", "b", "b", "c")
    assert names.rows("b") == range(1, 3)
    assert names.doubles() == {"b"}
    assert names.missing(["a", "b", "d"]) == ["d"]


def test_no_files_have_no_names():
    assert file_names().rows("a") == range(0)
    assert file_names().missing(["a"]) == ["a"]


def test_names_are_found_without_needless_dots_and_slashes():
    names = file_names("images/a.png", "images/b/c.png")
    assert names.missing(["./a.png", "b//c.png", "./images/a.png", "d.png"]) == ["d.png"]
    assert names.rows("./a.png") == range(0, 1)


def test_another_spelling_has_no_folder_that_the_annotation_leaves_out():
    names = file_names("val/ä.png", "val/b.png")
    assert names.spelled_as_there("a\u0308.png") == names.in_another_case("Ä.png") == "ä.png"


@pytest.mark.parametrize("names", [("ä.png",), ("x/a\u0308.png",)])
def test_other_spellings_are_found_after_a_copy_too(names):
    copy = pickle.loads(pickle.dumps(file_names(*names)))
    assert copy.rows(copy.spelled_as_there("ä.png"))
    assert copy.in_another_case("Ä.PNG") == names[0].removeprefix("x/")
    assert copy.in_another_case("b.png") is None
