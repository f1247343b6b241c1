"""Two processes with one image each learn what one process learns from both."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torchvision.models.detection._utils import BoxCoder

from dyhead_det.models.atss import DELTA_WEIGHTS
from dyhead_det.models.atss_loss import atss_losses


def gradients(images: list[int]) -> dict[str, torch.Tensor]:
    """Return the gradients of the losses' sum on a few places of the given images."""
    generator = torch.Generator().manual_seed(0)
    head = {
        "cls_logits": torch.randn(2, 6, 3, generator=generator),
        "bbox_regression": torch.randn(2, 6, 4, generator=generator),
        "bbox_ctrness": torch.randn(2, 6, 1, generator=generator),
    }
    corners = torch.arange(6.0)[:, None].expand(6, 2)
    anchors = torch.cat((corners, corners + 8), dim=1)
    targets = [
        {"boxes": torch.tensor([[0.0, 1.0, 9.0, 11.0]]), "labels": torch.tensor([1])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    matched = [torch.tensor([0, 0, -1, 0, -1, -1]), torch.full((6,), -1)]
    # One factor per output stands for the weights that all processes share.
    factors = nn.ParameterDict({name: torch.ones(()) for name in head})
    losses = atss_losses(
        {name: factors[name] * value[images] for name, value in head.items()},
        [anchors for _ in images],
        [targets[image] for image in images],
        [matched[image] for image in images],
        decode=BoxCoder(DELTA_WEIGHTS).decode_single,
    )
    torch.stack(list(losses.values())).sum().backward()
    return {name: factor.grad for name, factor in factors.items()}


def run_process(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save(gradients([rank]), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_the_mean_gradient_of_two_processes_is_that_of_one_with_both_images(tmp_path: Path) -> None:
    mp.spawn(run_process, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    for name, expected in gradients([0, 1]).items():
        # 3 positives on one process, none on the other: 1.5 in the mean, and (g / 1.5) / 2 = g / 3.
        torch.testing.assert_close((first[name] + second[name]) / 2, expected)
