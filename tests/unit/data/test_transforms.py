"""Augmentation moves boxes with the pixels and leaves none that cannot be seen."""

import pytest
import torch
from torchvision.transforms import v2

from dyhead_det.data.transforms import Augmentation, build_augmentation

PLAIN = {
    "horizontal_flip": 0.0,
    "vertical_flip": 0.0,
    "photometric": False,
    "large_scale_jitter": None,
    "size": 64,
}


def sample(*boxes, height=40, width=60):
    """A black image with a white rectangle for every box."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    for left, top, right, bottom in boxes:
        image[:, top:bottom, left:right] = 255
    target = {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.arange(len(boxes)),
        "image_id": 7,
    }
    return image, target


def extent_of_white(image):
    ys, xs = torch.nonzero(image[0] > 127, as_tuple=True)
    return [xs.min().item(), ys.min().item(), xs.max().item() + 1, ys.max().item() + 1]


def test_nothing_asked_for_is_no_augmentation():
    assert build_augmentation(**PLAIN) is None


@pytest.mark.parametrize(
    ("flip", "expected"),
    [
        # left, right -> width - right, width - left; top, bottom likewise with the height.
        ({"horizontal_flip": 1.0}, [40, 10, 55, 30]),
        ({"vertical_flip": 1.0}, [5, 10, 20, 30]),
        ({"horizontal_flip": 1.0, "vertical_flip": 1.0}, [40, 10, 55, 30]),
    ],
)
def test_flips_move_boxes_with_the_pixels(flip, expected):
    image, target = build_augmentation(**{**PLAIN, **flip})(*sample((5, 10, 20, 30)))
    assert target["boxes"].tolist() == [expected]
    assert extent_of_white(image) == expected


def test_plain_tensors_and_all_keys_come_back():
    image, target = build_augmentation(**{**PLAIN, "horizontal_flip": 1.0})(
        *sample((5, 10, 20, 30))
    )
    assert type(image) is torch.Tensor
    assert image.dtype == torch.uint8
    assert type(target["boxes"]) is torch.Tensor
    assert type(target["labels"]) is torch.Tensor
    assert target["boxes"].dtype == torch.float32
    assert target["image_id"] == 7


def test_the_sample_that_was_given_is_unchanged():
    image, target = sample((5, 10, 20, 30))
    before = image.clone()
    everything = {**PLAIN, "horizontal_flip": 1.0, "photometric": True}
    build_augmentation(**everything)(image, target)
    assert torch.equal(image, before)
    assert target["boxes"].tolist() == [[5, 10, 20, 30]]


def test_photometric_changes_leave_size_and_boxes_alone():
    torch.manual_seed(0)
    augment = build_augmentation(**{**PLAIN, "photometric": True})
    image, target = augment(*sample((5, 10, 20, 30)))
    assert image.shape == (3, 40, 60)
    assert image.dtype == torch.uint8
    assert target["boxes"].tolist() == [[5, 10, 20, 30]]


@pytest.mark.parametrize("scale", [0.2, 0.7, 1.0, 2.5])
def test_jitter_gives_the_asked_size_with_boxes_on_the_pixels(scale):
    torch.manual_seed(0)
    augment = build_augmentation(**{**PLAIN, "large_scale_jitter": (scale, scale)})
    image, target = augment(*sample((10, 5, 50, 35)))
    assert image.shape == (3, 64, 64)
    (box,) = target["boxes"].tolist()
    # Resizing blurs the edge of the rectangle over the neighboring pixels, and rounds the size.
    assert box == pytest.approx(extent_of_white(image), abs=2)


def test_a_box_that_is_cropped_away_goes_with_its_label():
    torch.manual_seed(0)
    corners = (0, 0, 6, 4), (54, 0, 60, 4), (0, 36, 6, 40), (54, 36, 60, 40)
    augment = build_augmentation(**{**PLAIN, "large_scale_jitter": (4.0, 4.0)})
    _, target = augment(*sample(*corners))
    assert len(target["boxes"]) == len(target["labels"]) <= 1


def test_an_image_without_boxes_stays_without():
    everything = {
        "horizontal_flip": 1.0,
        "vertical_flip": 1.0,
        "photometric": True,
        "large_scale_jitter": (0.5, 2.0),
        "size": 32,
    }
    image, target = build_augmentation(**everything)(*sample())
    assert image.shape == (3, 32, 32)
    assert target["boxes"].shape == (0, 4)
    assert target["labels"].shape == (0,)
    assert target["labels"].dtype == torch.int64


def test_boxes_are_clamped_to_the_image():
    image, target = sample((5, 10, 20, 30))
    target["boxes"] = torch.tensor([[-5.0, 10.0, 70.0, 30.0]])
    _, clean = Augmentation()(image, target)
    assert clean["boxes"].tolist() == [[0, 10, 60, 30]]


class CropLeft(v2.Transform):
    """Keep what lies right of a column."""

    def __init__(self, left):
        super().__init__()
        self.left = left

    def transform(self, inpt, params):
        return v2.functional.crop(inpt, 0, self.left, 40, 60 - self.left)


@pytest.mark.parametrize(
    ("left", "labels"),
    [
        (4, [0, 1, 2]),
        (19, [0, 1, 2]),  # a pixel of the first is left
        (20, [1, 2]),
        (30, [1, 2]),  # the second has less than a pixel, and all of it is left
        (31, [2]),
    ],
)
def test_a_crop_drops_slivers_of_objects_but_no_small_object(left, labels):
    image, target = sample((5, 10, 20, 30), (0, 0, 1, 1), (0, 0, 1, 1))
    target["boxes"][1:] = torch.tensor([[30.1, 8.0, 30.6, 20.0], [40, 8, 40.02, 8.3]])
    _, clean = Augmentation(crop=CropLeft(left))(image, target)
    assert clean["labels"].tolist() == labels


def test_objects_below_a_pixel_are_targets_after_every_augmentation():
    everything = {
        "horizontal_flip": 1.0,
        "vertical_flip": 1.0,
        "photometric": True,
        "large_scale_jitter": (0.1, 0.1),
        "size": 64,
    }
    image, target = sample((10, 10, 14, 13), (0, 0, 1, 1), height=400, width=600)
    target["boxes"][1] = torch.tensor([20.0, 20.0, 20.1, 20.1])
    for seed in range(20):
        torch.manual_seed(seed)
        _, small = build_augmentation(**everything)(image, target)
        assert small["labels"].tolist() == [0, 1]
        assert torch.all(small["boxes"][:, 2:] > small["boxes"][:, :2])


@pytest.mark.parametrize(("height", "width"), [(1, 1600), (1600, 1), (3, 2000)])
def test_very_long_pictures_keep_at_least_one_pixel_of_their_short_side(height, width):
    torch.manual_seed(0)
    augment = build_augmentation(**{**PLAIN, "large_scale_jitter": (0.1, 2.0)})
    image, target = augment(*sample((0, 0, width, height), height=height, width=width))
    assert image.shape == (3, 64, 64)
    assert len(target["boxes"]) <= 1
