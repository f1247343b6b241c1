"""Files are found in either Unicode form; another case is told, not taken."""

import unicodedata

import pytest

from dyhead_det.data.stores.folder import ImageFolder

NFC, NFD = (unicodedata.normalize(form, "Übung/größe é.png") for form in ("NFC", "NFD"))


def put(folder, name):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"")


@pytest.mark.parametrize(("written", "there"), [(NFC, NFD), (NFD, NFC), (NFC, NFC)])
def test_a_name_is_spelled_as_the_disk_has_it(tmp_path, written, there):
    assert NFC != NFD
    put(tmp_path, there)
    assert ImageFolder(tmp_path).spelled_as_there(written) == there


def test_folder_and_file_may_differ_in_form(tmp_path):
    mixed = NFC.split("/")[0] + "/" + NFD.split("/")[1]
    put(tmp_path, mixed)
    assert ImageFolder(tmp_path).spelled_as_there(NFC) == mixed


def test_a_name_without_a_file_stays_as_it_is(tmp_path):
    assert ImageFolder(tmp_path / "none").spelled_as_there(NFC) == NFC


def test_a_file_in_another_case_is_named(tmp_path):
    put(tmp_path, "Train/IMG_1.JPG")
    folder = ImageFolder(tmp_path)
    assert folder.in_another_case("train/img_1.jpg") == "Train/IMG_1.JPG"
    assert folder.in_another_case("train/img_2.jpg") is None
    assert "train/img_1.jpg" not in folder
    assert "Train/IMG_1.JPG" in folder


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "x/" * 3000 + "y"])
def test_names_that_no_file_can_have_are_not_there(tmp_path, name):
    assert name not in ImageFolder(tmp_path)


def test_a_link_to_nothing_is_not_called_another_case_of_itself(tmp_path):
    (tmp_path / "a.png").symlink_to("nowhere")
    assert ImageFolder(tmp_path).in_another_case("a.png") is None
