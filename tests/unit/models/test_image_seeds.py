"""What is drawn for an image follows from its own seed, whatever else is in the batch."""

import pytest
import torch
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from dyhead_det.models.detectors import build_detector
from dyhead_det.models.image_seeds import ImageSeeds, SeededSampler, mix_seeds

from conftest import make_config

SIZES = (64, 96, 128, 160)
LABELS = [torch.tensor([0, 1, -1, 2] * 25), torch.tensor([0, 0, 0, 1] * 20)]


def targets(*image_ids):
    return [{"image_id": image_id} for image_id in image_ids]


def sampler(image_seeds):
    return SeededSampler(image_seeds, batch_size_per_image=8, positive_fraction=0.25)


def sizes_of(seed, image_ids):
    seeds = ImageSeeds()
    seeds.start(seed, targets(*image_ids))
    return [seeds.choose_size(SIZES) for _ in image_ids]


def test_the_size_of_an_image_follows_from_seed_and_image():
    together = sizes_of(1, range(40))
    assert together == [sizes_of(1, [image_id])[0] for image_id in range(40)]
    assert set(together) == set(SIZES)
    assert together != sizes_of(2, range(40))


def test_the_samples_of_an_image_follow_from_seed_and_image():
    seeds = ImageSeeds()
    choose = sampler(seeds)
    seeds.start(1, targets(7, 8))
    together = choose(LABELS)
    for index, image_id in enumerate((7, 8)):
        seeds.start(1, targets(image_id))
        alone = choose([LABELS[index]])
        assert torch.equal(alone[0][0], together[0][index])
        assert torch.equal(alone[1][0], together[1][index])
    seeds.start(2, targets(7, 8))
    assert not torch.equal(choose(LABELS)[1][0], together[1][0])


def test_a_sample_has_its_share_of_positives_and_is_filled_with_negatives():
    seeds = ImageSeeds()
    seeds.start(1, targets(7, 8))
    for labels, positive, negative in zip(LABELS, *sampler(seeds)(LABELS), strict=True):
        assert positive.sum() == 2
        assert negative.sum() == 6
        assert (labels[positive.bool()] >= 1).all()
        assert (labels[negative.bool()] == 0).all()


def test_without_a_seed_everything_is_drawn_as_torchvision_does():
    torch.manual_seed(3)
    ours = sampler(ImageSeeds())(LABELS)
    torch.manual_seed(3)
    theirs = BalancedPositiveNegativeSampler(8, 0.25)(LABELS)
    for one, other in zip(ours[0] + ours[1], theirs[0] + theirs[1], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("compat", ["none", "detectron2"])
def test_a_detector_resizes_and_samples_by_the_seeds(compat):
    config = make_config(
        model={"input": {"multi_scale": [64, 96, 128], "long_edge": 256}, "compat": compat}
    )
    detector = build_detector(config.model, num_classes=2, load_backbone_weights=False)
    images = [torch.rand(3, 64, 64) for _ in range(2)]
    boxes = [
        {"boxes": torch.tensor([[5.0, 5, 40, 40]]), "labels": torch.tensor([1]), "image_id": n}
        for n in range(2)
    ]
    losses = [detector.train()(images, boxes, seed=seed) for seed in (5, 5, 6)]
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])
    assert not all(torch.equal(losses[0][name], losses[2][name]) for name in losses[0])


def test_mixed_seeds_differ_in_every_part_and_take_any_sign():
    seeds = {mix_seeds(a, b) for a in (-1, 0, 1, 2**70) for b in (-1, 0, 1)}
    assert len(seeds) == 12
    assert all(0 <= seed < 2**63 for seed in seeds)
