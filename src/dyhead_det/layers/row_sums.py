"""Weighted sums of rows of a table, and their gradient as the same thing the other way round.

    sums[n] = sum over k of  weights[n, k] * rows[index[n, k]]

is what `embedding_bag` computes. The gradient of the table is

    grad_rows[r] = sum over all (n, k) with index[n, k] = r of  weights[n, k] * grad_sums[n]

which is again a weighted sum of rows: sorted by destination, each destination is one bag. So
nothing is scattered, and equal inputs give equal bits.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def sum_rows(rows: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Return the sums, (N, C); differentiable by the weights.

    Args:
        rows: the table, (R, C).
        index: rows to sum, (..., K) int32 or int64; N is the product of what stands before K.
        weights: like ``index``, in the type of the rows.
    """
    if index.shape[-1] == 0:  # embedding_bag needs something in its bags
        return rows.new_zeros(index.shape[:-1].numel(), rows.shape[1])
    return F.embedding_bag(
        index.flatten(0, -2), rows.detach(), per_sample_weights=weights.flatten(0, -2), mode="sum"
    )


def add_to_rows(grad_rows: Tensor, index: Tensor, weights: Tensor, grad_sums: Tensor) -> None:
    """Add the gradient (N, C) of the sums to that of the table, (R, C), in place."""
    if index.numel() == 0:
        return
    destination, order = index.flatten().sort(stable=True)
    touched, counts = torch.unique_consecutive(destination, return_counts=True)
    summed = F.embedding_bag(
        order.div(index.shape[-1], rounding_mode="floor"),  # of the flattened index: which sum
        grad_sums,
        offsets=counts.cumsum(0) - counts,
        per_sample_weights=weights.flatten()[order],
        mode="sum",
    )
    grad_rows.index_add_(0, touched, summed.to(grad_rows.dtype))
