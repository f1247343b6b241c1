"""Tensors that backward computes again: the same gradients, computed once, and no memory."""

import weakref

import torch
from torch import Tensor

from dyhead_det.ops.gather.recompute import recomputed


class Squares:
    """Squares of a leaf, which can be computed again; counts how often."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.x = torch.randn(6, 4, requires_grad=True)
        self.times_computed_again = 0

    def __call__(self) -> Tensor:
        return self.x * self.x

    def again(self) -> Tensor:
        self.times_computed_again += 1
        return self().detach()


def two_uses(rows: Tensor) -> Tensor:
    """Of the whole and of a strided view of half of it."""
    return rows.sin().sum() + rows[::2].t().exp().sum()


def test_gradients_are_the_same_and_one_computation_serves_all_users() -> None:
    squares = Squares()
    (expected,) = torch.autograd.grad(two_uses(squares()), squares.x)
    rows = squares()
    with recomputed(rows, squares.again):
        result = two_uses(rows)
    assert squares.times_computed_again == 0
    (gradient,) = torch.autograd.grad(result, squares.x)
    assert torch.equal(gradient, expected)
    assert squares.times_computed_again == 1


def test_it_is_not_kept_before_backward_nor_after() -> None:
    squares = Squares()
    computed: list[weakref.ref[Tensor]] = []

    def again() -> Tensor:
        rows = squares.again()
        computed.append(weakref.ref(rows))
        return rows

    rows = squares()
    kept = weakref.ref(rows)
    with recomputed(rows, again):
        result = rows.sin().sum()
    del rows
    assert kept() is None
    result.backward()
    assert [each() for each in computed] == [None]


def test_other_tensors_are_saved_as_ever() -> None:
    squares = Squares()
    rows, other = squares(), torch.randn(6, 4, requires_grad=True)
    with recomputed(rows, squares.again):
        result = (other.exp() * 2).sum()
    result.backward()
    torch.testing.assert_close(other.grad, 2 * other.detach().exp())
    assert squares.times_computed_again == 0


def test_without_gradients_nothing_is_computed_again() -> None:
    squares = Squares()
    with torch.no_grad():
        rows = squares()
        with recomputed(rows, squares.again):
            two_uses(rows)
    assert squares.times_computed_again == 0
