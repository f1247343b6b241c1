"""An index leads to the bytes of each file, is kept until the archive changes, trusts no wreck."""

import io
import tarfile

import pytest

from dyhead_det.data.stores import tar_index
from dyhead_det.data.stores.archives import LocalArchive
from dyhead_det.data.stores.tar_index import read_index
from dyhead_det.errors import DatasetError
from dyhead_det.files import cache_folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write(path, files, *, form=tarfile.PAX_FORMAT, mode="w"):
    with tarfile.open(path, mode, format=form) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return LocalArchive(path)


def contents(archive):
    names, starts, sizes = read_index(archive)
    return {
        name: archive.read(int(start), int(size))
        for name, start, size in zip(names, starts, sizes, strict=True)
    }


FILES = {"a.png": b"one", "b/c.png": b"two" * 500, "d" * 200: b"", "ä.png": b"three"}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_bytes_of_every_file_are_found(tmp_path, form):
    files = {
        name: x for name, x in FILES.items() if len(name) < 100 or form != tarfile.USTAR_FORMAT
    }
    assert contents(write(tmp_path / "a.tar", files, form=form)) == files


def test_a_second_name_of_a_file_leads_to_its_bytes_and_folders_to_none(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "one").write_bytes(b"content")
    (tmp_path / "below" / "two").hardlink_to(tmp_path / "below" / "one")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "below", "below")
    found = contents(LocalArchive(tmp_path / "a.tar"))
    assert found == {"below/one": b"content", "below/two": b"content"}


def test_the_index_is_kept_until_the_archive_changes(tmp_path, monkeypatch):
    archive = write(tmp_path / "a.tar", FILES)
    read_index(archive)
    with monkeypatch.context() as patch:
        patch.setattr(tar_index, "_members", None)  # whoever reads headers now fails
        assert contents(archive) == FILES
    write(tmp_path / "a.tar", {"new.png": b"new"})
    assert contents(archive) == {"new.png": b"new"}


def test_a_damaged_cache_and_one_that_cannot_be_written_are_done_without(tmp_path, monkeypatch):
    archive = write(tmp_path / "a.tar", FILES)
    read_index(archive)
    [kept] = (cache_folder() / "archives").iterdir()
    kept.write_bytes(kept.read_bytes()[:-40])
    assert contents(archive) == FILES
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a.tar"))
    assert contents(archive) == FILES


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x[:1800], "a.tar is cut off, damaged or no tar archive"),
        (lambda x: x[:1100], "a.tar is cut off, damaged or no tar archive: no header at byte 1024"),
        (lambda x: b"", "a.tar is cut off, damaged or no tar archive: empty file"),
        (lambda x: b"words" * 500, "a.tar is cut off, damaged or no tar archive"),
        (lambda x: x[:1024] + b"\7" * 512 + x[1536:], "no header at byte 1024"),
    ],
)
def test_wrecks_are_refused(tmp_path, change, words):
    archive = write(tmp_path / "a.tar", FILES)
    archive.path.write_bytes(change(archive.path.read_bytes()))
    with pytest.raises(DatasetError, match=words):
        read_index(archive)


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_compressed_archives_are_refused(tmp_path, compression):
    archive = write(tmp_path / f"a.tar.{compression}", FILES, mode=f"w:{compression}")
    with pytest.raises(DatasetError, match=r"a\.tar\.\w+ is compressed"):
        read_index(archive)


def test_an_archive_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"no archive at .*gone\.tar"):
        read_index(LocalArchive(tmp_path / "gone.tar"))
    with pytest.raises(DatasetError, match=r"cannot be read: Is a directory"):
        read_index(LocalArchive(tmp_path))
