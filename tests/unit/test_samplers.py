"""Processes share the batches of one process."""

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
