"""Processes share the batches of one process."""

import numpy as np

from dyhead_det.data.samplers import EpochBatchSampler, SequentialBatchSampler


def batches_of(num_images, *, batch_size, epoch=0, rank=0, world_size=1):
    sampler = EpochBatchSampler(
        num_images, batch_size=batch_size, seed=3, epoch=epoch, rank=rank, world_size=world_size
    )
    return [[index for _, _, index in keys] for keys in sampler]


def test_keys_carry_seed_and_epoch():
    sampler = EpochBatchSampler(3, batch_size=2, seed=3, epoch=9)
    assert {key[:2] for keys in sampler for key in keys} == {(3, 9)}


def test_the_processes_share_the_batches_of_one_process():
    alone = batches_of(23, batch_size=6)
    shared = [batches_of(23, batch_size=6, rank=rank, world_size=3) for rank in range(3)]
    for step, batch in enumerate(alone):
        assert [index for shard in shared for index in shard[step]] == batch


def test_a_process_without_an_image_in_the_last_step_gets_an_empty_batch():
    shards = [batches_of(10, batch_size=8, rank=rank, world_size=4) for rank in range(4)]
    assert [[len(batch) for batch in shard] for shard in shards] == [[2, 1], [2, 1], [2, 0], [2, 0]]


def test_a_batch_that_does_not_divide_is_shared_out_as_evenly_as_can_be():
    shards = [batches_of(10, batch_size=5, rank=rank, world_size=3) for rank in range(3)]
    assert [[len(batch) for batch in shard] for shard in shards] == [[2, 2], [2, 2], [1, 1]]


def test_the_sequence_of_an_empty_share_is_empty():
    sampler = SequentialBatchSampler(2, batch_size=4, rank=2, world_size=3)
    assert len(sampler) == 0
    assert list(sampler) == []


COUNTS = np.array([0.25, 1.0, 2.5, 1.0, 4.25])


def keys_of_epoch(epoch, counts=COUNTS):
    sampler = EpochBatchSampler(len(counts), batch_size=3, seed=3, counts=counts, epoch=epoch)
    return [key for keys in sampler for key in keys]


def test_an_image_comes_as_often_as_its_count_says():
    epochs = [keys_of_epoch(epoch) for epoch in range(2000)]
    assert {len(keys) for keys in epochs} == {9}  # their sum
    times = np.array([np.bincount([key[2] for key in keys], minlength=5) for keys in epochs])
    assert (times >= np.floor(COUNTS)).all()
    assert (times <= np.ceil(COUNTS)).all()
    # A count of 2.5 is 2 or 3 with a deviation of 0.5: 0.011 in the mean of 2000.
    np.testing.assert_allclose(times.mean(axis=0), COUNTS, atol=0.05)


def test_no_key_comes_twice_in_a_run():
    keys = [key for epoch in range(50) for key in keys_of_epoch(epoch)]
    assert len(set(keys)) == len(keys)


def test_counts_of_one_take_every_image_once_under_the_keys_of_an_epoch():
    keys = keys_of_epoch(7, np.ones(6))
    assert sorted(keys) == [(3, 7, index) for index in range(6)]


def test_counts_that_sum_to_no_whole_number_are_rounded_together():
    assert len(keys_of_epoch(0, np.array([0.1, 0.1, 1.5]))) == 2
    assert len(keys_of_epoch(0, np.array([0.1, 0.1, 0.1]))) == 1


def test_batches_are_of_one_group_except_the_last_and_come_mixed():
    groups = np.array([0] * 13 + [1] * 22)
    sampler = EpochBatchSampler(35, batch_size=4, seed=3, groups=groups)
    batches = [[groups[index] for _, _, index in keys] for keys in sampler]
    assert [len(batch) for batch in batches] == [4] * 8 + [3]
    assert all(len(set(batch)) == 1 for batch in batches[:8])  # 12 and 20 images
    assert [batch[0] for batch in batches[:8]] != sorted(batch[0] for batch in batches[:8])
