"""What processes need of each other, in one process alone; for several see tests/integration."""

import pytest
import torch

from dyhead_det.distributed import rank_zero
from dyhead_det.distributed.collectives import (
    all_gather_numbers,
    broadcast_object,
    gather_objects,
)
from dyhead_det.distributed.ddp import wrap_ddp
from dyhead_det.distributed.launch import init_process_group
from dyhead_det.distributed.world import get_rank, get_world_size, is_main
from dyhead_det.errors import ConfigError


def test_one_process_has_all_and_waits_for_nobody():
    assert (get_rank(), get_world_size()) == (0, 1)
    assert is_main()
    assert broadcast_object(lambda: "said") == "said"
    assert gather_objects([1, 2]) == [1, 2]
    assert all_gather_numbers(3, 4) == [[3, 4]]
    model = torch.nn.Linear(1, 1)
    assert wrap_ddp(model) is model
    with init_process_group("cpu") as device:
        assert device == torch.device("cpu")


def test_what_only_the_main_process_does_is_left_out_in_others(monkeypatch):
    done = []
    rank_zero.main_only(done.append)("main")
    monkeypatch.setattr(rank_zero, "is_main", lambda: False)
    rank_zero.main_only(done.append)("other")
    assert done == ["main"]


@pytest.fixture(params=[0, 1])
def local_rank(monkeypatch, request):
    """Let this be one of two processes that torchrun has started on a machine with one GPU."""
    rank = str(request.param)
    values = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": rank, "RANK": rank}
    for name, value in {**values, "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    return request.param


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda", "2 processes on a machine with 1 CUDA devices; use torchrun --nproc-per-node 1"),
        ("cuda:0", "cuda:0 is one device for 2 processes; use cuda or cpu"),
        ("cuda:1", "cuda:1 is not there"),
    ],
)
def test_one_process_of_a_machine_tells_that_devices_are_missing(local_rank, name, message):
    with pytest.raises(ConfigError, match=message) as caught, init_process_group(name):
        pass
    assert caught.value.is_reported is (local_rank > 0)
