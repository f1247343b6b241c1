"""Transforms of one's own: any of torchvision's v2, or a function that keeps to their contract."""

import pytest
import torch
from torchvision.transforms import v2

from dyhead_det.data.custom_augmentation import CustomAugmentation


@pytest.fixture
def sample():
    image = torch.zeros(3, 20, 40, dtype=torch.uint8)
    image[:, 5:15, 10:30] = 200
    target = {
        "boxes": torch.tensor([[10.0, 5, 30, 15], [0, 0, 4, 4]]),
        "labels": torch.tensor([1, 0]),
        "image_id": 7,
    }
    return image, target


def test_image_and_boxes_are_turned_together(sample):
    image, target = sample
    flipped, of_flipped = CustomAugmentation(v2.RandomHorizontalFlip(1.0))(image, target)
    assert torch.equal(flipped, image.flip(-1))
    assert of_flipped["boxes"].tolist() == [[10, 5, 30, 15], [36, 0, 40, 4]]  # x -> 40 - x
    assert of_flipped["labels"].tolist() == [1, 0]
    assert of_flipped["image_id"] == 7
    assert type(flipped) is type(of_flipped["boxes"]) is torch.Tensor
    assert target["boxes"].tolist()[1] == [0, 0, 4, 4]  # what was given is as it was


def test_boxes_out_of_sight_go_with_their_labels_and_floats_become_bytes(sample):
    transform = v2.Compose([v2.CenterCrop((20, 20)), v2.ToDtype(torch.float32, scale=True)])
    image, target = CustomAugmentation(transform)(*sample)
    assert image.dtype == torch.uint8
    assert image.unique().tolist() == [0, 200]
    assert target["boxes"].tolist() == [[0, 5, 20, 15]]  # x - 10, clamped to 20
    assert target["labels"].tolist() == [1]


def test_boxes_in_another_format_come_back_as_corners(sample):
    _, target = CustomAugmentation(v2.ConvertBoundingBoxFormat("CXCYWH"))(*sample)
    assert target["boxes"].tolist() == [[10, 5, 30, 15], [0, 0, 4, 4]]


def test_a_function_is_as_good_as_a_transform(sample):
    def darken(image, target):
        return image // 2, target

    image, target = CustomAugmentation(darken)(*sample)
    assert image.max() == 100
    assert len(target["labels"]) == 2


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (lambda image, target: image, "it returned Image"),
        (lambda image, target: None, "it returned NoneType"),
        (lambda image, target: (image[:1], target), r"\(3, H, W\), it is \(1, 20, 40\)"),
        (lambda image, target: (v2.ToPILImage()(image), target), "it is Image"),
        (
            lambda image, target: (image, {**target, "boxes": target["boxes"][:1]}),
            "1 for 2 labels",
        ),
    ],
)
def test_what_breaks_the_contract_is_named(sample, transform, message):
    with pytest.raises(TypeError, match=f"augmentation: .*{message}"):
        CustomAugmentation(transform)(*sample)
