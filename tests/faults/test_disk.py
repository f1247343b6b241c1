"""Disks that are full, read-only or damaged, and folders that somebody else uses."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from program import assert_same_run, contents, rows_of

from dyhead_det.training.run_folder import held_folder


@pytest.fixture
def small_disk(tmp_path, undisturbed):
    """A file system of its own with room for two checkpoints and the rest, not for three."""
    size = int(2.6 * (undisturbed / "last.pt").stat().st_size)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    if os.name != "posix" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not permitted here")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def test_a_run_on_a_full_disk_goes_on_and_keeps_the_last_good_checkpoint(
    project, undisturbed, small_disk
):
    run = small_disk / "run"
    filled = project.train(run)
    assert filled.code == 6
    assert "last.pt could not be written (No space left on device), training goes on" in filled.text
    assert "error: trained to the end, step 8, but not saved" in filled.error
    assert contents(run / "last.pt")
    remount(small_disk, "size=0")  # without a bound
    assert project.train(run, resume=True).code == 0
    assert_same_run(run, undisturbed)


def test_nothing_is_lost_when_a_disk_is_full_for_a_while(project, undisturbed, tmp_path):
    run = tmp_path / "run"
    outcome = project.train(run, fault="file_size_limited", number=4, lifted=7)
    assert outcome.code == 0
    assert "last.pt could not be written (File too large), training goes on; step 3" in outcome.text
    assert contents(run / "last.pt") == contents(undisturbed / "last.pt")
    assert rows_of(run) == rows_of(undisturbed)


def test_stopping_on_a_full_disk_says_which_step_is_saved(project, tmp_path):
    run = tmp_path / "run"
    outcome = project.train(run, fault="stopped_on_full_disk", number=4)
    assert outcome.code == 143
    assert outcome.error == (
        f"error: stopped by SIGTERM after step 4 of 8; step 3 is saved in {run}/last.pt; go on "
        "with --resume"
    )


def test_rows_that_the_disk_refuses_are_written_later(project, undisturbed, tmp_path):
    run = tmp_path / "run"
    outcome = project.train(
        run, "train.save_every_steps=null", fault="no_space_for_rows", number=1, lifted=7
    )
    assert outcome.code == 0
    assert "metrics.jsonl: rows wait to be written" in outcome.text
    assert rows_of(run) == rows_of(undisturbed)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_log_on_a_full_disk_does_not_end_a_run(project, undisturbed, tmp_path):
    outcome = project.train(tmp_path / "run", fault="disk_of_stderr_full", number=2)
    assert outcome.code == 0
    assert_same_run(tmp_path / "run", undisturbed)


def test_a_read_only_folder_is_refused_before_training(project, small_disk):
    remount(small_disk, "ro")
    outcome = project.train(small_disk / "run")
    assert outcome.code == 2
    assert outcome.error == (
        f"error: {small_disk}/run: cannot be written (Read-only file system); give another folder "
        "by --out"
    )


def test_a_folder_that_cannot_be_made_is_refused_before_training(project, tmp_path):
    (tmp_path / "file").touch()
    outcome = project.train(tmp_path / "file" / "run")
    assert outcome.code == 2
    assert "run: cannot be written (Not a directory)" in outcome.error


def test_a_second_run_in_the_same_folder_is_refused(project, undisturbed, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    with held_folder(run):
        outcome = project.train(run, resume=True)
    assert outcome.code == 2
    assert f"{run}: another run is going on there (process {os.getpid()} on " in outcome.error
    assert project.train(run, resume=True).code == 0


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def remove(path: Path) -> None:
    path.unlink()


@pytest.fixture(scope="module")
def stopped_once(project, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("stopped") / "run"
    assert project.train(out, fault="signalled_at_step", number=5, name="SIGTERM").code == 143
    return out


@pytest.fixture
def stopped(stopped_once, tmp_path) -> Path:
    """The folder of a run that was stopped after five steps."""
    return shutil.copytree(stopped_once, tmp_path / "run")


@pytest.mark.parametrize("damage", [cut, empty, zero, flip_a_bit, remove])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(project, undisturbed, stopped, damage):
    damage(stopped / "last.pt")
    resumed = project.train(stopped, resume=True)
    assert resumed.code == 0
    assert "warning: " in resumed.text
    assert f"falling back to {stopped}/previous.pt of step 4" in resumed.text
    assert (stopped / "damaged.pt").exists() == (damage is not remove)
    assert_same_run(stopped, undisturbed)


def test_two_damaged_checkpoints_are_an_error(project, stopped):
    cut(stopped / "last.pt")
    cut(stopped / "previous.pt")
    outcome = project.train(stopped, resume=True)
    assert outcome.code == 4
    assert "previous.pt: damaged" in outcome.error


def test_the_newest_checkpoint_is_not_told_by_the_clock(project, undisturbed, stopped):
    os.utime(stopped / "last.pt", (0, 0))
    assert "going on after step 5" in project.train(stopped, resume=True).text


def test_a_damaged_checkpoint_does_not_pass_for_a_new_run(project, stopped):
    (stopped / "last.pt").unlink()
    outcome = project.train(stopped)
    assert outcome.code == 2
    assert "holds a run; go on with it by --resume" in outcome.error
