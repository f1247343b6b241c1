"""What a run sees depends on seed, epoch and position alone; broken images are told or counted."""

import io
import json
import logging
import os
import random

import numpy as np
import pytest
import torch
from PIL import Image

from dyhead_det.data.coco.dataset import load_coco
from dyhead_det.data.detection_dataset import BrokenImage, DetectionDataset
from dyhead_det.data.loaders import LoaderOptions, build_eval_loader, build_train_loader
from dyhead_det.data.transforms import build_augmentation
from dyhead_det.errors import DatasetError

NUM_IMAGES = 7


@pytest.fixture
def folder(tmp_path):
    """Seven pictures of different sizes with one box each, image ids 10, 11, ..."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(NUM_IMAGES):
        width, height = 20 + number, 30 - number
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        image_id = 10 + number
        images.append(
            {"id": image_id, "file_name": f"{number}.png", "width": width, "height": height}
        )
        annotations.append(
            {
                "id": number + 1,
                "image_id": image_id,
                "category_id": 1,
                "bbox": [2, 3, number + 2, 5],
            }
        )
    document = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "thing"}],
    }
    (tmp_path / "train.json").write_text(json.dumps(document))
    return tmp_path


@pytest.fixture
def coco(folder):
    return load_coco(folder / "train.json", folder, split="train")


@pytest.fixture
def dataset(coco):
    """All seven pictures with every augmentation that draws random numbers."""
    augmentation = build_augmentation(
        horizontal_flip=0.5,
        vertical_flip=0.5,
        photometric=True,
        large_scale_jitter=(0.5, 2.0),
        size=16,
    )
    return DetectionDataset(coco, augmentation=augmentation)


def options(**changes):
    settings = {
        "num_workers": 0,
        "prefetch_factor": 2,
        "persistent_workers": True,
        "pin_memory": False,
        "broken_images": "error",
    }
    return LoaderOptions(**{**settings, **changes})


def train_loader(dataset, *, batch_size=2, **changes):
    return build_train_loader(dataset, options(**changes), batch_size=batch_size, seed=5)


def eval_loader(coco, *, rank=0, world_size=1, **changes):
    return build_eval_loader(
        DetectionDataset(coco), options(**changes), batch_size=3, rank=rank, world_size=world_size
    )


def image_ids(batches):
    return [target["image_id"] for batch in batches for target in batch.targets]


def assert_same_batches(some, others):
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        assert image_ids([one]) == image_ids([other])
        for image, same in zip(one.images, other.images, strict=True):
            assert torch.equal(image, same)
        for target, same in zip(one.targets, other.targets, strict=True):
            assert torch.equal(target["boxes"], same["boxes"])
            assert torch.equal(target["labels"], same["labels"])


def test_batches_are_lists_of_plain_images_and_targets(coco):
    images, targets = next(iter(eval_loader(coco)))
    assert [tuple(image.shape) for image in images] == [(3, 30, 20), (3, 29, 21), (3, 28, 22)]
    assert all(image.dtype == torch.uint8 for image in images)
    assert [target["image_id"] for target in targets] == [10, 11, 12]
    assert targets[1]["boxes"].tolist() == [[2, 3, 5, 8]]
    assert targets[1]["labels"].tolist() == [0]


def test_evaluation_gives_every_image_once_in_order(coco):
    loader = eval_loader(coco)
    assert len(loader) == 3
    for _ in range(2):
        assert image_ids(loader) == list(range(10, 17))


def test_evaluation_shards_cover_every_image_once(coco):
    shards = [image_ids(eval_loader(coco, rank=rank, world_size=2)) for rank in range(2)]
    assert shards == [[10, 11, 12, 16], [13, 14, 15]]


def test_every_epoch_gives_every_image_once_in_another_order(dataset):
    loader = train_loader(dataset)
    orders = []
    for epoch in range(3):
        loader.set_epoch(epoch)
        orders.append(image_ids(loader))
    assert all(sorted(order) == list(range(10, 17)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_augmentation_differs_between_epochs(dataset):
    first, second = dataset[(0, 0, 3)], dataset[(0, 1, 3)]
    assert not torch.equal(first[0], second[0])


def test_a_sample_is_a_function_of_its_key(dataset):
    first = dataset[(1, 2, 3)]
    torch.manual_seed(99)
    np.random.seed(99)
    random.seed(99)
    dataset[(1, 2, 4)]
    again = dataset[(1, 2, 3)]
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1]["boxes"], again[1]["boxes"])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_loading_leaves_the_random_state_of_the_caller_alone(dataset, num_workers):
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    expected = torch.rand(3), np.random.random(3), random.random()
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    list(train_loader(dataset, num_workers=num_workers))
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.random(3), expected[1])
    assert random.random() == expected[2]


@pytest.mark.parametrize("is_persistent", [True, False])
def test_batches_do_not_depend_on_the_workers(dataset, is_persistent):
    alone = train_loader(dataset)
    helped = train_loader(
        dataset, num_workers=2, prefetch_factor=1, persistent_workers=is_persistent
    )
    for epoch in range(2):
        alone.set_epoch(epoch)
        helped.set_epoch(epoch)
        assert_same_batches(list(alone), list(helped))


@pytest.mark.parametrize("start_step", [0, 1, 3, 4])
def test_a_resumed_epoch_goes_on_with_the_batches_not_yet_seen(dataset, start_step):
    whole = train_loader(dataset)
    whole.set_epoch(2)
    resumed = train_loader(dataset)
    resumed.set_epoch(2, start_step=start_step)
    assert len(resumed) == 4 - start_step
    assert_same_batches(list(resumed), list(whole)[start_step:])
    assert resumed.position == 4


def test_the_position_counts_the_batches_given_not_those_prefetched(dataset):
    loader = train_loader(dataset, num_workers=1)
    loader.set_epoch(0, start_step=1)
    batches = iter(loader)
    next(batches)
    assert loader.position == 2


def test_an_epoch_left_in_the_middle_does_not_spill_into_the_next(dataset):
    loader = train_loader(dataset, num_workers=2)
    next(iter(loader))
    loader.set_epoch(1)
    fresh = train_loader(dataset)
    fresh.set_epoch(1)
    assert_same_batches(list(loader), list(fresh))


def test_a_start_behind_the_end_is_a_mistake_of_the_caller(dataset):
    with pytest.raises(ValueError, match=r"start_step 5 is not in 0\.\.4"):
        train_loader(dataset).set_epoch(0, start_step=5)


def test_evaluation_has_no_epochs(coco):
    with pytest.raises(TypeError, match="only a loader for training"):
        eval_loader(coco).set_epoch(1)


def test_a_data_set_smaller_than_the_batch_gives_one_batch(dataset):
    loader = train_loader(dataset, batch_size=100)
    assert len(loader) == 1
    assert sorted(image_ids(loader)) == list(range(10, 17))


def test_no_images_are_refused(coco):
    empty = load_coco(coco.annotations_path, coco.images.location, split="train")
    object.__setattr__(empty, "is_crowd", np.ones(NUM_IMAGES, dtype=np.bool_))
    with pytest.raises(DatasetError, match="no image with an object to train on"):
        train_loader(DetectionDataset(empty.without_empty_images()))


def test_reduced_decoding_shrinks_the_boxes_too(tmp_path):
    Image.new("RGB", (1001, 800)).save(tmp_path / "x.jpg")
    document = {
        "images": [{"id": 1, "file_name": "x.jpg", "width": 1001, "height": 800}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [100, 200, 301, 400]}],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (tmp_path / "train.json").write_text(json.dumps(document))
    coco = load_coco(tmp_path / "train.json", tmp_path, split="train")
    image, target, _ = DetectionDataset(coco, resized_to=(400, 501))[(0, 0, 0)]
    assert image.shape == (3, 400, 501)
    assert target["boxes"].tolist() == [[50, 100, 200.5, 300]]
    assert coco.target(0)["boxes"].tolist() == [[100, 200, 401, 600]]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_broken_image_is_one_error_that_names_it(folder, coco, num_workers):
    (folder / "4.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"4.png cannot be read.*data.broken_images") as caught:
        list(eval_loader(coco, num_workers=num_workers))
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_broken_images_are_skipped_counted_and_told_once(folder, coco, caplog, num_workers):
    (folder / "4.png").write_bytes(b"no image")
    (folder / "0.png").unlink()
    loader = eval_loader(coco, num_workers=num_workers, broken_images="skip")
    with caplog.at_level(logging.WARNING):
        assert image_ids(loader) == [11, 12, 13, 15, 16]
        assert image_ids(loader) == [11, 12, 13, 15, 16]
    assert set(loader.broken) == {"0.png", "4.png"}
    assert "no image file" in loader.broken["0.png"]
    assert len(caplog.records) == 1
    assert "2 images could not be read and were skipped: 0.png, 4.png" in caplog.messages[0]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_batch_without_any_readable_image_is_empty(folder, coco, num_workers):
    for number in range(3):
        (folder / f"{number}.png").unlink()
    loader = eval_loader(coco, num_workers=num_workers, broken_images="skip")
    assert [len(batch.images) for batch in loader] == [0, 3, 1]
    assert loader.position == 3


def test_nothing_but_broken_images_is_an_error(folder, coco):
    for number in range(NUM_IMAGES):
        (folder / f"{number}.png").unlink()
    with pytest.raises(DatasetError, match=r"none of the images can be read; 0.png: no image file"):
        list(eval_loader(coco, broken_images="skip"))


def test_a_rank_may_find_nothing_but_broken_images_in_its_part(folder, coco):
    for number in range(NUM_IMAGES):
        (folder / f"{number}.png").unlink()
    loader = eval_loader(coco, world_size=2, broken_images="skip")
    assert [len(batch.images) for batch in loader] == [0, 0]


def test_an_image_of_another_size_is_broken(folder, coco):
    Image.new("RGB", (99, 98)).save(folder / "2.png")
    found = DetectionDataset(coco)[(0, 0, 2)]
    assert isinstance(found, BrokenImage)
    assert "99 x 98 pixels" in found.reason
    assert "22 x 28" in found.reason


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_pipe_among_the_images_is_broken_and_not_waited_for(folder, coco, num_workers):
    (folder / "4.png").unlink()
    os.mkfifo(folder / "4.png")
    loader = eval_loader(coco, num_workers=num_workers, broken_images="skip")
    assert image_ids(loader) == [10, 11, 12, 13, 15, 16]
    assert "named pipe" in loader.broken["4.png"]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_flaw_of_an_image_is_told_once_by_the_main_process(folder, coco, caplog, num_workers):
    file = io.BytesIO()
    Image.open(folder / "2.png").save(file, format="JPEG")
    (folder / "2.png").write_bytes(file.getvalue()[:-2])  # without its end marker
    loader = eval_loader(coco, num_workers=num_workers)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert len(image_ids(loader)) == NUM_IMAGES
    assert len(caplog.records) == 1
    assert "2.png lacks the end marker" in caplog.messages[0]


def test_an_image_of_one_pixel_keeps_its_box(tmp_path):
    Image.new("RGB", (1, 1)).save(tmp_path / "x.png")
    document = {
        "images": [{"id": 1, "file_name": "x.png", "width": 1, "height": 1}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (tmp_path / "train.json").write_text(json.dumps(document))
    coco = load_coco(tmp_path / "train.json", tmp_path, split="train")
    sample = DetectionDataset(coco)[(0, 0, 0)]
    assert sample.target["boxes"].tolist() == [[0, 0, 1, 1]]
