"""Batch norms over several ranks equal one batch norm over all their images, and only those."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from dyhead_det.models.backbones import sync_norm
from dyhead_det.models.backbones.sync_norm import (
    SyncBatchNorm2d,
    convert_sync_batchnorm,
    excluded_from_statistics,
)


class Ranks:
    """Threads in the place of ranks: sums wait for all of them, as an all-reduce does."""

    def __init__(self, world_size, monkeypatch):
        self.world_size = world_size
        self._barrier = threading.Barrier(world_size, timeout=20)
        self._values = []
        monkeypatch.setattr(sync_norm, "get_world_size", lambda: world_size)
        monkeypatch.setattr(sync_norm, "all_reduce_sum", self.all_reduce_sum)

    def all_reduce_sum(self, values):
        self._values.append(values.detach().clone())
        self._barrier.wait()
        total = sum(self._values[1:], self._values[0])
        if self._barrier.wait() == 0:
            self._values = []
        self._barrier.wait()
        return total

    def run(self, function, *arguments):
        with ThreadPoolExecutor(self.world_size) as threads:
            return list(threads.map(function, *arguments))


@pytest.fixture
def two_ranks(monkeypatch):
    return Ranks(2, monkeypatch)


def batch_norm():
    norm = nn.BatchNorm2d(3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 0.5, 2.0]))
        norm.bias.copy_(torch.tensor([0.0, 1.0, -1.0]))
    return norm


def maps(num_images):
    return 5 + 2 * torch.randn(num_images, 3, 4, 4)


def passed(norm, x, weights, *, is_counted=True):
    """Return output and gradient of a weighted sum, as losses weigh a rank's images."""
    x = x.clone().requires_grad_()
    model = nn.Sequential(norm)
    if is_counted:
        y = model(x)
    else:
        with excluded_from_statistics(model):
            y = model(x)
    (y * weights).sum().backward()
    return y.detach(), x.grad


def test_ranks_with_unlike_shares_compute_what_one_batch_norm_does(two_ranks):
    x, weights = maps(3), torch.randn(3, 3, 4, 4)
    reference = batch_norm()
    expected, expected_gradient = passed(reference, x, weights)
    norms = [SyncBatchNorm2d(batch_norm()) for _ in range(2)]
    results = two_ranks.run(passed, norms, x.split([2, 1]), weights.split([2, 1]))
    torch.testing.assert_close(torch.cat([y for y, _ in results]), expected)
    torch.testing.assert_close(torch.cat([g for _, g in results]), expected_gradient)
    for norm in norms:
        torch.testing.assert_close(norm.running_mean, reference.running_mean)
        torch.testing.assert_close(norm.running_var, reference.running_var)


def test_the_stand_in_of_a_rank_without_an_image_counts_for_nothing(two_ranks):
    """Counted, black pixels would halve the means."""
    x, weights = maps(2), torch.randn(2, 3, 4, 4)
    reference = batch_norm()
    expected, expected_gradient = passed(reference, x, weights)
    norms = [SyncBatchNorm2d(batch_norm()) for _ in range(2)]
    stand_in = torch.zeros(1, 3, 8, 8)

    def rank(norm, of_rank, weights, is_counted):
        return passed(norm, of_rank, weights, is_counted=is_counted)

    (y, gradient), (_, no_gradient) = two_ranks.run(
        rank, norms, (x, stand_in), (weights, torch.zeros(1, 3, 8, 8)), (True, False)
    )
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(gradient, expected_gradient)
    assert not no_gradient.any()
    for norm in norms:
        torch.testing.assert_close(norm.running_mean, reference.running_mean)
        torch.testing.assert_close(norm.running_var, reference.running_var)
        assert norm.num_batches_tracked == 1
        assert norm.is_counted


def test_a_micro_batch_without_an_image_on_any_rank_changes_nothing(two_ranks):
    norms = [SyncBatchNorm2d(batch_norm()) for _ in range(2)]
    stand_in = torch.zeros(1, 3, 8, 8)

    def rank(norm):
        return passed(norm, stand_in, torch.zeros(1, 3, 8, 8), is_counted=False)

    for y, gradient in two_ranks.run(rank, norms):
        assert y.isfinite().all()
        assert not gradient.any()
    for norm in norms:
        assert torch.equal(norm.running_mean, torch.zeros(3))
        assert torch.equal(norm.running_var, torch.ones(3))
        assert norm.num_batches_tracked == 0


def test_a_norm_of_one_rank_keeps_its_statistics_over_a_stand_in():
    model = nn.Sequential(batch_norm(), nn.BatchNorm2d(3).eval())
    with excluded_from_statistics(model):
        model(torch.zeros(1, 3, 8, 8))
    assert model[0].num_batches_tracked == 0
    assert [norm.training for norm in model] == [True, False]


def test_every_batch_norm_is_replaced_and_no_weight_changes_its_name():
    model = nn.ModuleDict({"stem": nn.Sequential(nn.Conv2d(3, 3, 1), batch_norm())})
    before = {name: x.clone() for name, x in model.state_dict().items()}
    convert_sync_batchnorm(model)
    assert isinstance(model["stem"][1], SyncBatchNorm2d)
    after = model.state_dict()
    assert all(torch.equal(x, after[name]) for name, x in before.items())
