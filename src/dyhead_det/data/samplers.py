"""The order of a run: which images make up which batch, for any process, from any position on.

A sample is asked for by a key ``(seed, epoch, index)`` and draws its random numbers from it; so no
state has to reach the worker processes, and a run that goes on sees what it would have seen.
"""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

# (seed, epoch, index)
SampleKey = tuple[int, int, int]


class EpochBatchSampler(Sampler[list[SampleKey]]):
    """Batches of one shuffled epoch, from any position on, for one of several processes.

    The images of a step are the same whatever the number of processes. All processes get equally
    many batches, and every image comes once an epoch; where a step has fewer images than there are
    processes, those left over get an empty batch.

    Args:
        num_images: in the data set.
        batch_size: images in one batch of all processes together.
        seed: of the run; seed and epoch give the order.
        epoch: the current one, changed by `set_epoch`.
        start_step: number of batches of this epoch that were already taken.
        rank: number of this process.
        world_size: number of processes.
    """

    def __init__(
        self,
        num_images: int,
        *,
        batch_size: int,
        seed: int,
        epoch: int = 0,
        start_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.num_images = num_images
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.steps_per_epoch = -(-num_images // batch_size)
        self.set_epoch(epoch, start_step=start_step)

    def set_epoch(self, epoch: int, *, start_step: int = 0) -> None:
        """Choose which epoch comes next, and how many of its batches to leave out."""
        if not 0 <= start_step <= self.steps_per_epoch:
            raise ValueError(f"start_step {start_step} is not in 0..{self.steps_per_epoch}")
        self.epoch = epoch
        self.start_step = start_step

    def __len__(self) -> int:
        """Return the number of batches left in this epoch."""
        return self.steps_per_epoch - self.start_step

    def __iter__(self) -> Iterator[list[SampleKey]]:
        """Give the keys of one batch after the other."""
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.num_images)
        for step in range(self.start_step, self.steps_per_epoch):
            indices = order[step * self.batch_size : (step + 1) * self.batch_size]
            own = np.array_split(indices, self.world_size)[self.rank]
            yield [(self.seed, self.epoch, index) for index in own.tolist()]


class SequentialBatchSampler(Sampler[list[SampleKey]]):
    """Every image once, in order, shared out among the processes: rank, rank + world_size, ..."""

    def __init__(self, num_images: int, *, batch_size: int, rank: int, world_size: int) -> None:
        self.indices = range(rank, num_images, world_size)
        self.batch_size = batch_size

    def __len__(self) -> int:
        """Return the number of batches of this process."""
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        """Give the keys of one batch after the other."""
        for start in range(0, len(self.indices), self.batch_size):
            yield [(0, 0, index) for index in self.indices[start : start + self.batch_size]]
