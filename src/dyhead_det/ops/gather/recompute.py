"""Let autograd compute a tensor again instead of keeping it until backward."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor


@contextmanager
def recomputed(tensor: Tensor, compute: Callable[[], Tensor]) -> Iterator[None]:
    """Inside, whatever would be saved for backward of a tensor or its views costs no memory.

    Backward computes the tensor once; it is gone when the last of those who saved it has run.

    Args:
        tensor: what is not to be kept.
        compute: gives its values again; what it refers to is kept instead.
    """
    address = tensor.untyped_storage().data_ptr()
    compute_once = cache(compute)

    def pack(saved: Tensor) -> Tensor | Callable[[], Tensor]:
        if saved.untyped_storage().data_ptr() != address:
            return saved
        layout = (saved.shape, saved.stride(), saved.storage_offset())
        return lambda: compute_once().as_strided(*layout)

    def unpack(packed: Tensor | Callable[[], Tensor]) -> Tensor:
        return packed if isinstance(packed, Tensor) else packed()

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield
