"""Weighted sums of rows of a feature matrix, and their gradient as the same the other way round.

    sums[n] = sum over k of  weights[n, k] * features[index[n, k]]

is what `embedding_bag` computes. The gradient of the features is

    grad_features[r] = sum over all (n, k) with index[n, k] = r of  weights[n, k] * grad_sums[n]

which is again a weighted sum of rows: sorted by destination, each destination is one bag. So
nothing is scattered, and equal inputs give equal bits.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

RADIX_SORT_NUMBERS = 2**15
"""From how many whole numbers on PyTorch sorts by their digits."""


def sum_rows(features: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Return the sums, (N, C); differentiable by the weights.

    Args:
        features: (R, C).
        index: rows to sum, (..., K) int32 or int64; N is the product of what stands before K.
        weights: like ``index``, in the type of the features.
    """
    if index.shape[-1] == 0:  # embedding_bag needs something in its bags
        return features.new_zeros(index.shape[:-1].numel(), features.shape[1])
    # On a GPU PyTorch has no gradient of bfloat16 weights.
    is_widened = weights.requires_grad and weights.is_cuda and weights.dtype == torch.bfloat16
    dtype = torch.float32 if is_widened else weights.dtype
    sums = F.embedding_bag(
        index.flatten(0, -2),
        features.detach().to(dtype),
        per_sample_weights=weights.flatten(0, -2).to(dtype),
        mode="sum",
    )
    return sums.to(weights.dtype)


def add_to_rows(grad_features: Tensor, index: Tensor, weights: Tensor, grad_sums: Tensor) -> None:
    """Add the gradient (N, C) of the sums to that of the features, (R, C), in place."""
    every_row = slice(0, len(grad_features))
    touched, grad_touched = grad_of_rows(index, weights, grad_sums, rows_read=every_row)
    grad_features.index_add_(0, touched, grad_touched.to(grad_features.dtype))


def grad_of_rows(
    index: Tensor, weights: Tensor, grad_sums: Tensor, *, rows_read: slice
) -> tuple[Tensor, Tensor]:
    """Turn the gradient of the sums into that of the rows that they read.

    Args:
        index: as in `sum_rows`.
        weights: as in `sum_rows`.
        grad_sums: (N, C).
        rows_read: a range that holds every row in ``index``.

    Returns:
        T rows of the features, each once, among them all that were read, and their gradient (T, C).
    """
    if index.numel() == 0:
        return index.new_empty(0), grad_sums.new_empty(0, grad_sums.shape[1])
    destination, order = _sorted(index.flatten())
    touched, bags = _bags(destination, rows_read)
    grad_touched = F.embedding_bag(
        order.div(index.shape[-1], rounding_mode="floor"),  # of the flattened index: which sum
        grad_sums,
        offsets=bags,
        per_sample_weights=weights.flatten()[order],
        mode="sum",
    )
    return touched, grad_touched


def _bags(destination: Tensor, rows_read: slice) -> tuple[Tensor, Tensor]:
    """Find rows, and where each begins among the sorted destinations, (M,); both (T,).

    On a CPU these are the rows that were read. A GPU would have to be waited for to learn how many
    that is, so there it is every row of the range, most of which were read.
    """
    if _is_size_free(destination):
        touched, counts = torch.unique_consecutive(destination, return_counts=True)
        return touched, counts.cumsum(0) - counts
    touched = torch.arange(
        rows_read.start, rows_read.stop, dtype=destination.dtype, device=destination.device
    )
    return touched, torch.searchsorted(destination, touched)


def _is_size_free(x: Tensor) -> bool:
    """Tell whether a size that depends on values is known without waiting for a device."""
    return x.device.type == "cpu"


def _sorted(index: Tensor) -> tuple[Tensor, Tensor]:
    """Sort row numbers stably, (M,); return them and where they stood.

    On a CPU PyTorch sorts by the digits, six times faster, only where there are numbers enough; so
    what is missing is appended, to be the last, and cut off again.
    """
    is_worth_it = index.device.type == "cpu" and len(index) > RADIX_SORT_NUMBERS // 8
    missing = max(0, RADIX_SORT_NUMBERS - len(index)) if is_worth_it else 0
    filled = F.pad(index, (0, missing), value=torch.iinfo(index.dtype).max)
    numbers, order = filled.sort(stable=True)
    return numbers[: len(index)], order[: len(index)]
