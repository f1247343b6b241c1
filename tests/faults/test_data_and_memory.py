"""Images that vanish, processes that die, memory that is short, numbers that are none."""

import pytest
from program import assert_same_run, contents

from dyhead_det.data.samplers import EpochBatchSampler


@pytest.fixture
def image_of_step_8(project):
    """The file of an image that the eighth step needs; it is whole again after the test."""
    order = EpochBatchSampler(5, batch_size=2, seed=0, epoch=2, start_step=1)
    (_, _, index), *_ = next(iter(order))
    path = project.image(index)
    content = path.read_bytes()
    yield path
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("fault", "reason"), [("image_lost", "no image file at"), ("image_spoilt", "cannot be read")]
)
def test_an_image_that_is_lost_or_spoilt_ends_the_run_with_its_name(
    project, undisturbed, tmp_path, image_of_step_8, fault, reason
):
    run, path = tmp_path / "run", image_of_step_8
    content = path.read_bytes()
    settings = ("data.val=null", "train.early_stopping=null")
    ended = project.train(run, *settings, fault=fault, number=7, path=str(path))
    assert ended.code == 3
    assert reason in ended.error
    assert str(path) in ended.error
    assert f"step 7 is saved in {run}/last.pt; go on with --resume" in ended.error
    path.write_bytes(content)
    assert project.train(run, *settings, resume=True).code == 0
    assert contents(run / "last.pt")[0] == contents(undisturbed / "last.pt")[0]


def test_a_worker_that_dies_ends_the_run_without_loss(project, undisturbed, tmp_path):
    run = tmp_path / "run"
    ended = project.train(run, "data.num_workers=1", fault="worker_killed", number=5)
    assert ended.code == 6
    assert "a process that reads images died" in ended.error
    assert "lower data.num_workers" in ended.error
    assert f"step 5 is saved in {run}/last.pt; go on with --resume" in ended.error
    assert project.train(run, "data.num_workers=0", resume=True).code == 0
    assert_same_run(run, undisturbed)


def test_full_shared_memory_ends_the_run_without_loss(project, undisturbed, tmp_path):
    run = tmp_path / "run"
    ended = project.train(run, "data.num_workers=2", fault="shared_memory_full")
    assert ended.code == 6
    assert "a process that reads images failed (RuntimeError: unable to" in ended.error
    assert "free memory, in /dev/shm too (docker: --shm-size); step 0 is saved" in ended.error
    assert project.train(run, resume=True).code == 0
    assert_same_run(run, undisturbed)


def test_an_error_that_nobody_foresaw_is_shown_and_ends_the_worker_processes(
    project, undisturbed, tmp_path
):
    run = tmp_path / "run"
    ended = project.train(run, "data.num_workers=2", fault="program_wrong", number=6)
    assert ended.code == 1
    assert "ZeroDivisionError" in ended.text
    assert project.train(run, resume=True).code == 0
    assert_same_run(run, undisturbed)


def test_a_loss_that_is_not_a_number_ends_the_run_before_it_is_saved(
    project, undisturbed, tmp_path
):
    run = tmp_path / "run"
    ended = project.train(run, fault="weights_lost", number=6)
    assert ended.code == 5
    assert "error: step 6: loss_" in ended.error
    assert " is nan, on images 1" in ended.error
    assert f"step 4 is saved in {run}/last.pt; lower optim.lr" in ended.error
    assert project.train(run, resume=True).code == 0
    assert_same_run(run, undisturbed)


@pytest.mark.parametrize(
    ("fault", "wanted"),
    [
        ("memory_exhausted", "4503599627370496 bytes more were needed"),
        ("gpu_memory_exhausted", "2.50 GiB more were needed"),
    ],
)
def test_out_of_memory_says_what_to_lower(project, undisturbed, tmp_path, fault, wanted):
    run = tmp_path / "run"
    ended = project.train(run, fault=fault, number=6)
    assert ended.code == 8
    assert f"error: out of memory on cpu, {wanted}; raise train.accumulate (1)" in ended.error
    assert "lower train.batch_size (2)" in ended.error
    assert "model.input.short_edge and long_edge (64, 64)" in ended.error
    assert ended.error.endswith(f"step 4 is saved in {run}/last.pt")
    assert project.train(run, resume=True).code == 0
    assert_same_run(run, undisturbed)
