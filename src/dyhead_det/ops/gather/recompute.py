"""Let autograd compute a tensor again instead of keeping it until backward."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor


@contextmanager
def recomputed(tensor: Tensor, compute: Callable[[], Tensor]) -> Iterator[None]:
    """Inside, whatever would be saved for backward of a tensor or its views costs no memory.

    A tensor is known by the identity of its storage. This function holds the storage while it
    lasts, so that no other can take that identity; what stays for backward knows but a number, and
    keeps no storage alive. Backward computes the tensor once for all who saved it. It is
    gone when the last of them has run, or, where the graph is retained, with the graph.

    Args:
        tensor: what is not to be kept; nobody may write into it from here on.
        compute: gives its values again, in the same layout; what it refers to is kept instead.
    """
    storage = tensor.untyped_storage()
    identity = id(storage)
    compute_once = cache(torch.no_grad()(compute))

    def pack(saved: Tensor) -> Tensor | Callable[[], Tensor]:
        if id(saved.untyped_storage()) != identity:
            return saved
        layout = (saved.shape, saved.stride(), saved.storage_offset())
        return lambda: compute_once().as_strided(*layout)

    def unpack(packed: Tensor | Callable[[], Tensor]) -> Tensor:
        return packed if isinstance(packed, Tensor) else packed()

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield
    del storage  # until here, see above
