"""The order of a run: which images make up which batch, for any process, from any position on.

A sample is asked for by a key ``(seed, epoch, index)`` and draws its random numbers from it; so no
state has to reach the worker processes, and a run that goes on sees what it would have seen. Where
an image may come several times an epoch, up to R, epoch e of its keys is e * R + 0, 1, ... R - 1.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

# (seed, epoch, index)
SampleKey = tuple[int, int, int]

Counts = NDArray[np.float64]
Groups = NDArray[np.int64]
# (samples, 2): which time of its image a sample is, and the index of the image.
Samples = NDArray[np.int64]


class EpochBatchSampler(Sampler[list[SampleKey]]):
    """Batches of one shuffled epoch, from any position on, for one of several processes.

    The images of a step are the same whatever the number of processes. All processes get equally
    many batches; where a step has fewer images than there are processes, those left over get an
    empty batch.

    Args:
        num_images: in the data set.
        batch_size: images in one batch of all processes together.
        seed: of the run; seed and epoch give the order.
        counts: how often each image comes an epoch in the mean, (N,); without it once, exactly.
        groups: images of different groups do not share a batch, (N,), except that what is left of
            each group makes up the last batches of the epoch.
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
        counts: Counts | None = None,
        groups: Groups | None = None,
        epoch: int = 0,
        start_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.num_images = num_images
        self.batch_size = batch_size
        self.seed = seed
        self.counts = counts
        self.groups = groups
        self.rank = rank
        self.world_size = world_size
        self.steps_per_epoch = -(-samples_per_epoch(num_images, counts) // batch_size)
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
        samples = self._order()
        for step in range(self.start_step, self.steps_per_epoch):
            of_step = samples[step * self.batch_size : (step + 1) * self.batch_size]
            own = np.array_split(of_step, self.world_size)[self.rank]
            yield [(self.seed, epoch, index) for epoch, index in own.tolist()]

    def _order(self) -> Samples:
        """Return the samples of the epoch, batch after batch."""
        generator = np.random.default_rng((self.seed, self.epoch))
        order = generator.permutation(self.num_images)
        if self.counts is None:
            samples = np.stack([np.full_like(order, self.epoch), order], axis=1)
        else:
            samples = _repeated(order, self.counts, generator)
            samples[:, 0] += self.epoch * _most_repeats(self.counts)
        if self.groups is None:
            return samples
        return _grouped(samples, self.groups[samples[:, 1]], self.batch_size, generator)


def samples_per_epoch(num_images: int, counts: Counts | None) -> int:
    """Return how many samples an epoch has; with counts, their sum, rounded."""
    return num_images if counts is None else max(1, round(float(counts.sum())))


def _most_repeats(counts: Counts) -> int:
    """Return how often an image can come in one epoch."""
    return int(np.ceil(_scaled(counts).max()))


def _scaled(counts: Counts) -> Counts:
    """Let counts have the sum that the length of an epoch is rounded to."""
    scaled: Counts = counts * (samples_per_epoch(len(counts), counts) / counts.sum())
    return scaled


def _repeated(order: NDArray[np.int64], counts: Counts, generator: np.random.Generator) -> Samples:
    """Let every image come as often as its count says, rounded up or down at random.

    The images lie side by side on a line, as long as their counts, in random order; a comb whose
    teeth are one apart, with its first at random, takes what it hits. (Systematic sampling: epochs
    of one length, and less chance in them than in draws one by one.)
    """
    ends = np.cumsum(_scaled(counts)[order])
    num_samples = samples_per_epoch(len(counts), counts)
    teeth = np.arange(num_samples) + generator.random()
    hit = np.minimum(np.searchsorted(ends, teeth, side="right"), len(order) - 1)  # ascending
    which_time = np.arange(num_samples) - np.searchsorted(hit, hit)
    return generator.permutation(np.stack([which_time, order[hit]], axis=1))


def _grouped(
    samples: Samples, groups: Groups, batch_size: int, generator: np.random.Generator
) -> Samples:
    """Reorder samples so that batches are of one group, in random order, as long as that works."""
    batches, left_over = [], []
    for group in np.unique(groups):
        members = samples[groups == group]
        end = len(members) - len(members) % batch_size
        batches.append(members[:end].reshape(-1, batch_size, 2))
        left_over.append(members[end:])
    shuffled = generator.permutation(np.concatenate(batches))
    return np.concatenate([shuffled.reshape(-1, 2), *left_over])


class SequentialBatchSampler(Sampler[list[SampleKey]]):
    """Every image once, in order, batch by batch shared out among the processes.

    Batch number rank, rank + world_size, ... of what one process would take: an image is padded
    with the same neighbors, whatever the number of processes.
    """

    def __init__(self, num_images: int, *, batch_size: int, rank: int, world_size: int) -> None:
        self.num_images = num_images
        self.batch_size = batch_size
        self.starts = range(rank * batch_size, num_images, world_size * batch_size)

    def __len__(self) -> int:
        """Return the number of batches of this process."""
        return len(self.starts)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        """Give the keys of one batch after the other."""
        for start in self.starts:
            end = min(start + self.batch_size, self.num_images)
            yield [(0, 0, index) for index in range(start, end)]
