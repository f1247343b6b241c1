"""Two processes with one image each learn what one process learns from both."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from dyhead_det.training import step as step_module
from dyhead_det.training.run import build_run

from conftest import draw_tiny_dataset, make_config

IMAGES = [torch.full((3, 64, 64), value, dtype=torch.uint8) for value in (90, 200)]
TARGETS = [
    {
        "boxes": torch.tensor([[4.0, 4, 40, 44], [20, 10, 60, 40]]),
        "labels": torch.tensor([0, 1]),
        "image_id": 10,
    },
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "image_id": 11},
]


def gradients(folder: Path, images: list[int]) -> dict[str, torch.Tensor]:
    """Return the gradients of the first step on the given images."""
    config = make_config(
        folder / "data",
        model={"detector": {"name": "atss"}, "channels": 64, "backbone": {"norm": "frozen"}},
        optim={"name": "sgd", "clip_norm": None},
    )
    run = build_run(config, folder, torch.device("cpu"), is_new=True)
    run.parts.detector.train()
    step_module.train_step(run, [IMAGES[i] for i in images], [TARGETS[i] for i in images])
    return {
        name: parameter.grad
        for name, parameter in run.parts.detector.named_parameters()
        if parameter.grad is not None
    }


def run_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save(gradients(Path(folder), [rank]), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_the_mean_gradient_of_two_processes_is_that_of_one(tmp_path: Path) -> None:
    draw_tiny_dataset(tmp_path / "data")
    mp.spawn(run_process, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    expected = gradients(tmp_path, [0, 1])
    assert expected
    for name, gradient in expected.items():
        # All positives are on one process; a mean of two means would be twice off.
        torch.testing.assert_close((first[name] + second[name]) / 2, gradient, rtol=1e-3, atol=1e-6)
