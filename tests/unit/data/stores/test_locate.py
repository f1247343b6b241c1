"""What a person writes leads to a folder, to archives or to a URL."""

import tarfile
from pathlib import Path

import pytest

from dyhead_det.data.stores.archives import TarArchives
from dyhead_det.data.stores.folder import ImageFolder
from dyhead_det.data.stores.locate import expand, folder_path, image_location, open_store
from dyhead_det.data.stores.remote import RemoteFolder
from dyhead_det.errors import ConfigError, DatasetError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [
        ("a.tar", ["a.tar"]),
        ("a-{8..11}.tar", ["a-8.tar", "a-9.tar", "a-10.tar", "a-11.tar"]),
        ("a-{008..010}.tar", ["a-008.tar", "a-009.tar", "a-010.tar"]),
        ("{a,b}/{0..1}.tar", ["a/0.tar", "b/0.tar", "a/1.tar", "b/1.tar"]),
    ],
)
def test_braces_mean_what_they_mean_in_a_shell(pattern, meant):
    assert sorted(expand(pattern)) == sorted(meant)


@pytest.mark.parametrize(
    "pattern", ["{3..1}.tar", "{0..99999999999}.tar", "{0..9999}{0..9999}.tar"]
)
def test_patterns_of_none_or_of_too_many_are_refused(pattern):
    with pytest.raises(DatasetError, match="archives"):
        expand(pattern)


def test_a_url_stays_as_it_is_and_a_path_lies_below_the_root():
    assert image_location("s3://bucket/images", Path("root")) == "s3://bucket/images"
    assert image_location("images", Path("root")) == Path("root/images")
    assert folder_path(Path("images")) == Path("images")
    assert folder_path(Path("images.tar")) is folder_path("file:///images") is None


def test_each_place_has_its_store(tmp_path):
    (tmp_path / "called.tar").mkdir()
    for name in ("a-0.tar", "a-1.tar", "[odd].tar"):
        with tarfile.open(tmp_path / name, "w") as archive:
            archive.add(__file__, f"{name}.png")
    assert isinstance(open_store(tmp_path / "called.tar"), ImageFolder)
    assert isinstance(open_store(tmp_path / "none"), ImageFolder)
    assert isinstance(open_store(f"file://{tmp_path}"), RemoteFolder)
    assert "[odd].tar.png" in open_store(tmp_path / "[odd].tar")
    (tmp_path / "[{a,b}]").mkdir()
    (tmp_path / "[odd].tar").rename(tmp_path / "[{a,b}]" / "0.tar")
    assert "[odd].tar.png" in open_store(tmp_path / "[{a,b}]" / "*.tar")
    for pattern in ("a-*.tar", "a-{0..1}.tar", "a-[01].tar"):
        for place in (tmp_path / pattern, f"file://{tmp_path}/{pattern}"):
            store = open_store(place)
            assert isinstance(store, TarArchives)
            assert store.missing(["a-0.tar.png", "a-1.tar.png"]) == []


def test_one_archive_of_several_that_is_not_there_is_named(tmp_path):
    with tarfile.open(tmp_path / "a-0.tar", "w") as archive:
        archive.add(__file__, "0.png")
    with pytest.raises(DatasetError, match=r"no archive at .*a-1\.tar"):
        open_store(tmp_path / "a-{0..1}.tar")


def test_nothing_where_a_pattern_leads_is_an_error(tmp_path):
    for place in (tmp_path / "*.tar", f"file://{tmp_path}/*.tar", f"file://{tmp_path}/a.tar"):
        with pytest.raises(DatasetError, match=r"no archive at .*\.tar"):
            open_store(place)


def test_a_file_that_is_no_archive_is_told(tmp_path):
    (tmp_path / "images.zip").write_bytes(b"PK")
    with pytest.raises(DatasetError, match="is neither a folder of images nor a tar archive"):
        open_store(tmp_path / "images.zip").missing(["a.png"])


def test_a_kind_of_url_that_nobody_knows_is_told():
    with pytest.raises(ConfigError, match="nosuch://images: Protocol not known: nosuch"):
        open_store("nosuch://images")
