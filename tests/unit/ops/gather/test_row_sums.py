"""Weighted sums of rows and their gradient, against the same in dense matrices."""

import pytest
import torch
from torch import Tensor

from dyhead_det.ops.gather import row_sums
from dyhead_det.ops.gather.row_sums import add_to_rows, grad_of_rows, sum_rows


def dense(index: Tensor, weights: Tensor, num_rows: int) -> Tensor:
    """The sums as a matrix (N, R) that multiplies the features."""
    matrix = torch.zeros(len(index), num_rows, dtype=weights.dtype)
    return matrix.scatter_add(1, index.long(), weights)


def operands() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    # Row 6 is never read, and some sums read a row twice.
    index = torch.randint(0, 6, (40, 4), dtype=torch.int32)
    return torch.randn(7, 3).double(), index, torch.randn(40, 4).double()


def test_sums_are_a_product_with_a_sparse_matrix() -> None:
    rows, index, weights = operands()
    expected = dense(index, weights, 7) @ rows
    torch.testing.assert_close(sum_rows(rows, index, weights), expected)
    torch.testing.assert_close(sum_rows(rows, index.view(8, 5, 4), weights.view(8, 5, 4)), expected)


def test_the_gradient_is_the_product_with_its_transpose_and_is_added() -> None:
    rows, index, weights = operands()
    grad_sums = torch.randn(40, 3).double()
    before = torch.randn_like(rows)
    grad_rows = before.clone()
    add_to_rows(grad_rows, index, weights, grad_sums)
    torch.testing.assert_close(grad_rows, before + dense(index, weights, 7).t() @ grad_sums)


def test_no_sums_add_nothing() -> None:
    rows, index, weights = operands()
    nothing = sum_rows(rows, index[:0], weights[:0])
    assert nothing.shape == (0, 3)
    grad_rows = torch.zeros_like(rows)
    add_to_rows(grad_rows, index[:0], weights[:0], nothing)
    assert not grad_rows.any()


def test_sums_of_no_rows_are_zero() -> None:
    rows, index, weights = operands()
    assert torch.equal(sum_rows(rows, index[:, :0], weights[:, :0]), torch.zeros(40, 3).double())
    grad_rows = torch.zeros_like(rows)
    add_to_rows(grad_rows, index[:, :0], weights[:, :0], torch.ones(40, 3).double())
    assert not grad_rows.any()


@pytest.mark.parametrize("num_sums", [500, 2_000, 20_000])  # 2000, 8000 and 80 000 row numbers
def test_the_gradient_of_many_sums(num_sums: int) -> None:
    torch.manual_seed(0)
    index = torch.randint(0, 50, (num_sums, 4), dtype=torch.int32)
    weights = torch.randn(num_sums, 4, dtype=torch.double)
    grad_sums = torch.randn(num_sums, 2, dtype=torch.double)
    touched, gradient = grad_of_rows(index, weights, grad_sums, rows_read=slice(0, 50))
    assert torch.equal(touched, torch.arange(50, dtype=torch.int32))
    torch.testing.assert_close(gradient, dense(index, weights, 50).t() @ grad_sums)


def test_a_device_that_is_not_asked_gives_every_row_of_the_range(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(row_sums, "_is_size_free", lambda _: False)
    _, index, weights = operands()
    index = index + 10  # rows 10..15, of which 13 is made absent, in the range 9..18
    index[index == 13] = 12
    grad_sums = torch.randn(40, 3).double()
    touched, gradient = grad_of_rows(index, weights, grad_sums, rows_read=slice(9, 18))
    assert touched.tolist() == list(range(9, 18))
    torch.testing.assert_close(gradient, (dense(index, weights, 18).t() @ grad_sums)[9:])
    assert not gradient[[0, 4, 7, 8]].any()  # 9, 13, 16 and 17 are read by none
