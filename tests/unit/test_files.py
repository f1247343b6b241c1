"""Files written whole or not at all, whatever happens in between."""

import errno
import os
import subprocess
import sys

import pytest

from dyhead_det.errors import ConfigError
from dyhead_det.files import remove_abandoned, require_new, require_writable, written_whole


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_file_is_the_old_one_or_the_new_one(tmp_path):
    path = tmp_path / "file"
    with written_whole(path) as unfinished:
        unfinished.write_text("old")
    with pytest.raises(ZeroDivisionError), written_whole(path) as unfinished:
        unfinished.write_text(f"n{1 // 0}")
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["x" * 255, "\u00e4" * 127, "\u732b" * 85])  # 255 bytes, 254, 255
def test_a_name_may_be_as_long_as_the_file_system_lets_it(tmp_path, name):
    with written_whole(tmp_path / name) as unfinished:
        unfinished.write_text("whole")
    assert names_in(tmp_path) == [name]


def test_names_that_begin_alike_do_not_meet(tmp_path):
    long = "x" * 100
    with written_whole(tmp_path / f"{long}1") as one, written_whole(tmp_path / f"{long}2") as two:
        one.write_text("one")
        two.write_text("two")
    assert [(tmp_path / f"{long}{n}").read_text() for n in (1, 2)] == ["one", "two"]


def test_an_error_of_the_disk_names_the_file(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(OSError, match="No space left") as caught, written_whole(path):
        raise OSError(errno.ENOSPC, "No space left")  # as `write` raises it
    assert caught.value.filename == str(path)
    with pytest.raises(FileNotFoundError) as caught, written_whole(path / "inner") as unfinished:
        unfinished.write_text("")
    assert caught.value.filename == str(path / "inner")


def test_an_error_about_another_file_stays_one(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, written_whole(tmp_path / "file"):
        (tmp_path / "other").read_text()
    assert caught.value.filename == str(tmp_path / "other")


KILLED = """
import os, signal, sys
from pathlib import Path
from dyhead_det.files import written_whole
with written_whole(Path(sys.argv[1])) as unfinished:
    unfinished.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name != "posix", reason="processes are asked for by signals")
def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    for name in ("one", "two"):
        subprocess.run([sys.executable, "-c", KILLED, tmp_path / name], check=False)
    assert len(names_in(tmp_path)) == 2
    others = [".x.unfinished", ".x.0123abcd-elsewhere-1.unfinished", "x-1.unfinished"]
    for name in others:
        (tmp_path / name).touch()
    with written_whole(tmp_path / "mine") as mine:
        mine.touch()
        remove_abandoned(tmp_path)
        assert names_in(tmp_path) == sorted([*others, mine.name])


def test_a_folder_is_tried_and_left_as_it_was(tmp_path):
    require_writable(tmp_path / "new" / "folder", "results.json")
    assert names_in(tmp_path / "new" / "folder") == []


def test_a_folder_that_takes_no_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "results.json").mkdir()
    with pytest.raises(ConfigError, match=r"file/out: cannot be written \(Not a directory\); give"):
        require_writable(tmp_path / "file" / "out")
    with pytest.raises(ConfigError, match=r"results\.json: cannot be written \(Is a directory\)"):
        require_writable(tmp_path, "results.json")
    assert names_in(tmp_path) == ["file", "results.json"]


def test_a_file_is_replaced_only_when_asked_for(tmp_path):
    path = tmp_path / "file"
    require_new(path, overwrite=False)
    path.touch()
    require_new(path, overwrite=True)
    with pytest.raises(ConfigError, match=r"there already; .* replace it by --overwrite"):
        require_new(path, overwrite=False)
    with pytest.raises(ConfigError, match=r"there already; .* it is no file"):
        require_new(tmp_path, overwrite=True)
