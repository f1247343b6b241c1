"""Runs that are killed or stopped at any moment: resumed, they end as if nothing had been."""

import random

import pytest
from program import assert_same_run, contents

NUM_KILLS = 20


@pytest.fixture(scope="module")
def num_calls(project, tmp_path_factory):
    """How many functions are called in the training of a run."""
    folder = tmp_path_factory.mktemp("counted")
    outcome = project.train(folder / "run", fault="killed_at_call", total=str(folder / "total"))
    assert outcome.code == 0
    return int((folder / "total").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("kill", range(NUM_KILLS))
def test_a_run_killed_at_a_random_moment_ends_with_the_same_bytes(
    project, undisturbed, num_calls, tmp_path, kill
):
    moment = random.Random(kill).randint(1, num_calls * 99 // 100)
    killed = project.train(tmp_path / "run", fault="killed_at_call", number=moment)
    assert killed.code == -9
    assert project.train(tmp_path / "run", resume=True).code == 0
    assert_same_run(tmp_path / "run", undisturbed)


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_with_the_same_bytes(
    project, undisturbed, num_calls, tmp_path
):
    moments = random.Random(0)
    for _ in range(5):
        moment = moments.randint(1, num_calls // 3)
        killed = project.train(tmp_path / "run", resume=True, fault="killed_at_call", number=moment)
        assert killed.code == -9
    assert project.train(tmp_path / "run", resume=True).code == 0
    assert_same_run(tmp_path / "run", undisturbed)


OPERATIONS = (
    "half of the bytes are written",
    "before they are forced to the disk",
    "before the old checkpoint gets its second name",
    "before that becomes the previous checkpoint",
    "before the new one takes the old one's place",
    "before the folder is forced to the disk",
)


@pytest.mark.parametrize("operation", range(len(OPERATIONS)), ids=OPERATIONS)
def test_a_run_killed_while_it_saves_has_a_whole_checkpoint(
    project, undisturbed, tmp_path, operation
):
    run = tmp_path / "run"
    killed = project.train(run, fault="killed_while_saving", save=2, operation=operation)
    assert killed.code == -9
    assert contents(run / "last.pt")
    resumed = project.train(run, resume=True)
    assert resumed.code == 0
    assert "falling back" not in resumed.text
    assert_same_run(run, undisturbed)


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129)])
def test_a_run_that_is_asked_to_stop_saves_the_step_it_is_in(
    project, undisturbed, tmp_path, name, code
):
    run = tmp_path / "run"
    stopped = project.train(run, fault="signalled_at_step", number=5, name=name)
    assert stopped.code == code
    assert stopped.error == (
        f"error: stopped by {name} after step 5 of 8; step 5 is saved in {run}/last.pt; go on with "
        "--resume"
    )
    assert project.train(run, resume=True).code == 0
    assert_same_run(run, undisturbed)


# What the run of most tests goes without.
MORE = (
    "data.num_workers=2",
    "data.group_by_aspect_ratio=true",
    "data.sampling={name: repeat_factor, threshold: 0.9}",
    "train.accumulate=2",
    "train.freeze={backbone_steps: 4}",
    "train.ema.evaluate_raw=true",
)


@pytest.fixture(scope="module")
def undisturbed_with_more(project, tmp_path_factory):
    out = tmp_path_factory.mktemp("more") / "run"
    assert project.train(out, *MORE).code == 0
    return out


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGKILL", -9)])
def test_a_run_in_parts_with_workers_and_repeated_images_ends_with_the_same_bytes(
    project, undisturbed_with_more, tmp_path, name, code
):
    run = tmp_path / "run"
    stopped = project.train(run, *MORE, fault="signalled_at_step", number=6, name=name)
    assert stopped.code == code
    assert project.train(run, *MORE, resume=True).code == 0
    assert_same_run(run, undisturbed_with_more)


def test_sigterm_may_reach_the_processes_that_read_images_too(project, undisturbed, tmp_path):
    run = tmp_path / "run"
    stopped = project.train(run, "data.num_workers=2", fault="all_asked_to_stop", number=5)
    assert stopped.code == 143
    assert f"step 5 is saved in {run}/last.pt" in stopped.error
    assert project.train(run, resume=True).code == 0
    assert_same_run(run, undisturbed)


def test_no_state_of_a_random_generator_is_missing_from_a_checkpoint(project, tmp_path):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    assert project.train(straight, fault="losses_drawn").code == 0
    assert project.train(stopped, fault="losses_drawn", stopped_at=5).code == 143
    assert project.train(stopped, resume=True, fault="losses_drawn").code == 0
    assert_same_run(stopped, straight)


def test_a_second_ctrl_c_while_saving_leaves_the_checkpoint_before(project, undisturbed, tmp_path):
    stopped = project.train(tmp_path / "run", fault="interrupted_twice", number=6)
    assert stopped.code == 130
    assert contents(tmp_path / "run" / "last.pt")[1] == 4
    assert project.train(tmp_path / "run", resume=True).code == 0
    assert_same_run(tmp_path / "run", undisturbed)


def test_a_clock_that_jumps_changes_nothing(project, undisturbed, tmp_path):
    assert project.train(tmp_path / "run", fault="clock_set").code == 0
    assert_same_run(tmp_path / "run", undisturbed)
