"""What torchrun tells a process, and every way in which that can make no sense."""

import pytest

from dyhead_det.distributed.environment import (
    LaunchEnvironment,
    get_local_rank,
    read_launch_environment,
    was_restarted,
)
from dyhead_det.distributed.launch import init_process_group
from dyhead_det.distributed.rank_zero import local_main_first
from dyhead_det.errors import ConfigError

SENSIBLE = {
    "WORLD_SIZE": "4",
    "RANK": "3",
    "LOCAL_WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500",
}


@pytest.fixture
def environment(monkeypatch):
    """Set what a launcher sets, all of it or all but one variable, or with another value."""

    def arrange(**changes):
        for name, value in {**SENSIBLE, **changes}.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)

    return arrange


def test_a_sensible_environment_is_read(environment):
    environment()
    assert read_launch_environment() == LaunchEnvironment(3, 4, 1, 2, "localhost:29500")
    assert get_local_rank() == 1


@pytest.mark.parametrize("world_size", [None, "1", " 1 "])
def test_alone_nothing_else_is_looked_at(environment, world_size):
    environment(WORLD_SIZE=world_size, LOCAL_RANK="x", RANK="7", MASTER_ADDR=None)
    assert read_launch_environment() is None
    assert get_local_rank() == 0
    with init_process_group("cpu") as device, local_main_first():
        assert device.type == "cpu"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE='abc' is no whole number"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE='' is no whole number"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE=0 is below 1"),
        ({"WORLD_SIZE": "-2"}, "WORLD_SIZE='-2' is no whole number"),
        ({"WORLD_SIZE": "٢"}, "WORLD_SIZE='٢' is no whole number"),
        ({"RANK": None}, "RANK is missing"),
        ({"RANK": "4"}, "RANK=4 is not below WORLD_SIZE=4"),
        ({"RANK": "1.5"}, "RANK='1.5' is no whole number"),
        ({"LOCAL_WORLD_SIZE": None}, "LOCAL_WORLD_SIZE is missing"),
        ({"LOCAL_WORLD_SIZE": "0"}, "LOCAL_WORLD_SIZE=0 is below 1"),
        ({"LOCAL_WORLD_SIZE": "5"}, "LOCAL_WORLD_SIZE=5 is above 4"),
        ({"LOCAL_RANK": None}, "LOCAL_RANK is missing"),
        ({"LOCAL_RANK": "2"}, "LOCAL_RANK=2 is not below LOCAL_WORLD_SIZE=2"),
        ({"MASTER_ADDR": None}, "MASTER_ADDR is missing"),
        ({"MASTER_ADDR": " "}, "MASTER_ADDR is missing"),
        ({"MASTER_PORT": None}, "MASTER_PORT is missing"),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT=70000 is above 65535"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT='http' is no whole number"),
    ],
)
def test_nonsense_is_named_in_one_line_before_anything_is_waited_for(environment, changes, message):
    environment(**changes)
    with pytest.raises(ConfigError) as caught, init_process_group("cpu"):
        pass
    text = str(caught.value)
    assert message in text
    assert "start with torchrun, or unset WORLD_SIZE" in text
    assert "\n" not in text
    assert caught.value.exit_code == 2


def test_all_that_is_missing_is_named_at_once(environment):
    environment(WORLD_SIZE="2", RANK=None, LOCAL_RANK=None, LOCAL_WORLD_SIZE=None)
    with pytest.raises(ConfigError, match="LOCAL_WORLD_SIZE is missing, RANK is missing, LOCAL"):
        read_launch_environment()


@pytest.mark.parametrize(("count", "expected"), [(None, False), ("0", False), ("1", True)])
def test_torchrun_says_whether_it_has_started_a_run_again(monkeypatch, count, expected):
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    if count is not None:
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", count)
    assert was_restarted() is expected


def test_a_senseless_number_of_restarts_is_refused(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "often")
    with pytest.raises(ConfigError, match="TORCHELASTIC_RESTART_COUNT='often'"):
        was_restarted()
