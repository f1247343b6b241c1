"""Whatever is named as a source, laid into folders or held in an array: errors of our own only."""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dyhead_det.data.images import image_suffixes
from dyhead_det.errors import DatasetError
from dyhead_det.escaping import printable
from dyhead_det.prediction.images import as_image
from dyhead_det.prediction.outputs.paths import picture_paths
from dyhead_det.prediction.sources.files import ImageSource, find_images

pytestmark = pytest.mark.skipif(os.name != "posix", reason="names that other systems refuse")

# What file systems take, bytes that are no text among them, and what they do not.
NAMES = st.text(
    st.one_of(
        st.sampled_from("ab.*?[]!~-_ /\\\n\x1b\x00\u202e\udc80\u00e9\U0001f600{}$"),
        st.characters(codec="utf-8"),
    ),
    max_size=12,
)
SUFFIXES = st.sampled_from([".png", ".JPG", ".jpeg", ".gif", ".txt", ""])
ENTRIES = st.lists(
    st.tuples(NAMES.map(lambda name: name.replace("\0", "").replace("/", "")), SUFFIXES), max_size=6
)


def outcome_of(function, kind):
    """Return what a function returns, or its error of a kind."""
    try:
        return function()
    except kind as error:
        return error


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    for name in ("a.png", "b/a.png", "b/c[1].png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    (folder / "b" / "back").symlink_to(folder)
    os.mkfifo(folder / "pipe.png")
    return folder


@given(st.lists(NAMES, max_size=3))
def test_any_source_is_files_or_one_printable_error(folder, sources):
    sources = [f"{folder}/{source}" if source else source for source in sources]
    images = outcome_of(lambda: find_images(sources, except_in=folder / "out"), DatasetError)
    if isinstance(images, DatasetError):
        assert len(images.args) == 1
        assert len(printable(images)) < 5000
        return
    resolved = [image.path.resolve() for image in images]
    assert len(set(resolved)) == len(resolved)
    assert all(path.is_file() for path in resolved)


@given(ENTRIES)
def test_of_a_folder_every_image_is_taken_once_and_every_picture_has_its_own_path(entries):
    folder = Path(tempfile.mkdtemp())
    try:
        for i, (name, suffix) in enumerate(entries):
            inner = folder / f"f{i % 2}"
            inner.mkdir(exist_ok=True)
            with suppress(OSError, UnicodeEncodeError):  # the file system does not take it
                (inner / f"{name}{suffix}").touch()
        expected = {
            path
            for path in folder.glob("*/*")
            if path.suffix.lower() in image_suffixes() and not path.name.startswith(".")
        }
        if not expected:
            with pytest.raises(DatasetError):
                find_images([folder], except_in=folder / "out")
            return
        images = find_images([folder], except_in=folder / "out")
        assert {image.path for image in images} == expected
        assert len(images) == len(expected)
        pictures = picture_paths(images, folder)
        keys = [str(path).casefold() for path in pictures]
        assert len(set(keys)) == len(keys)
        assert not set(keys) & {str(path.resolve()).casefold() for path in expected}
        assert all(path.parent == folder.resolve() / path.parent.name for path in pictures)
    finally:
        shutil.rmtree(folder)


@given(
    st.lists(NAMES.filter(lambda name: "/" not in name and name not in ("", ".", "..")), max_size=8)
)
def test_names_of_pictures_are_unique_and_fit(names):
    images = [
        ImageSource(Path(f"/in/{i}") / (name * 40), Path(name * 40))
        for i, name in enumerate(names)
        if "\0" not in name
    ]
    paths = picture_paths(images, Path("/out"))
    assert len({str(path).casefold() for path in paths}) == len(images)
    assert all(len(os.fsencode(path.name)) <= 255 for path in paths)


SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)
TYPES = st.sampled_from(
    ["bool", "u1", "u2", "u4", "i1", "i4", "i8", "f2", "f4", "f8", "c8", "U1", "O"]
)


@given(SHAPES, TYPES, st.floats(width=16), st.booleans())
def test_any_array_is_an_image_or_a_value_error(shape, dtype, value, is_reversed):
    with np.errstate(all="ignore"):
        array = (
            np.full(shape, value).astype(dtype)
            if dtype not in ("U1", "O")
            else np.full(shape, "x", dtype)
        )
    array = array[::-1] if is_reversed and array.ndim else array
    image = outcome_of(lambda: as_image(array), ValueError)
    if isinstance(image, ValueError):
        assert str(image).startswith(("an image", "a float image"))
        return
    assert image.shape[0] == 3
    assert image.numel() > 0
    assert image.is_contiguous()
