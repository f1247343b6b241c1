"""How many processes train together, and sums over them; no different for one process alone."""

import torch.distributed as dist
from torch import Tensor


def num_processes() -> int:
    """Return how many processes train this model together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_processes(values: Tensor) -> Tensor:
    """Add up values, without their gradients, of all processes; alone, return them as they are.

    Args:
        values: of the same shape in every process.
    """
    if num_processes() == 1:
        return values
    values = values.detach().clone()
    dist.all_reduce(values)
    return values
