"""Rank and world size: which one of the processes of a run this is; rank 0 of 1 when alone."""

import torch.distributed as dist


def get_world_size() -> int:
    """Return how many processes (ranks) train this model together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def get_rank() -> int:
    """Return the rank of this process, from 0 to world size - 1."""
    return dist.get_rank() if get_world_size() > 1 else 0


def is_main() -> bool:
    """Return True on rank 0, which alone writes files and logs."""
    return get_rank() == 0
