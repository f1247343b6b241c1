"""How a batch is split, and by what the losses of its micro-batches are weighted."""

import pytest
import torch

from dyhead_det.training import micro_batches
from dyhead_det.training.micro_batches import split_batch, weigh_losses


def sizes(num_images, num_micro_batches):
    images = [torch.full((3, 1, 1), number) for number in range(num_images)]
    targets = [{"image_id": number} for number in range(num_images)]
    split = split_batch(images, targets, num_micro_batches)
    given = [int(image[0, 0, 0]) for micro_batch in split for image in micro_batch.images]
    assert given == [t["image_id"] for micro_batch in split for t in micro_batch.targets]
    assert given == list(range(num_images))
    return [len(micro_batch.images) for micro_batch in split]


@pytest.mark.parametrize(
    ("num_images", "num_micro_batches", "expected"),
    [(4, 1, [4]), (4, 2, [2, 2]), (5, 2, [2, 3]), (7, 3, [2, 3, 2]), (2, 5, [1, 1])],
)
def test_alone_no_micro_batch_is_empty(num_images, num_micro_batches, expected):
    assert sizes(num_images, num_micro_batches) == expected


@pytest.mark.parametrize("num_images", range(4))
def test_every_rank_takes_equally_many_whatever_it_has(monkeypatch, num_images):
    monkeypatch.setattr(micro_batches, "get_world_size", lambda: 2)
    assert len(sizes(num_images, 3)) == 3


def test_losses_are_weighted_by_name_or_by_their_images_and_named_alike():
    losses = {"classification": torch.tensor(2.0), "loss_box": torch.tensor(3.0)}
    assert weigh_losses(losses, {}) == {"loss_classification": 2, "loss_box": 3}
    assert weigh_losses(losses, {"images": torch.tensor(0.5)}) == {
        "loss_classification": 1,
        "loss_box": 1.5,
    }
    by_name = {"classification": torch.tensor(0.25), "loss_box": torch.tensor(2.0)}
    assert weigh_losses(losses, by_name) == {"loss_classification": 0.5, "loss_box": 6}
