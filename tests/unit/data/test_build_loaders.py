"""From the configuration to loaders: what is decoded smaller, and what never is."""

import json

import pytest
import torch
from PIL import Image

from dyhead_det.data.build_loaders import evaluation_loader, largest_training_size, training_loader
from dyhead_det.data.coco.dataset import load_coco

from conftest import make_config

CPU = torch.device("cpu")


@pytest.fixture
def large_jpeg(tmp_path):
    """One JPEG of 512 x 256 pixels with one box."""
    Image.new("RGB", (512, 256)).save(tmp_path / "large.jpg")
    document = {
        "images": [{"id": 1, "file_name": "large.jpg", "width": 512, "height": 256}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [80, 40, 160, 200]}],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (tmp_path / "train.json").write_text(json.dumps(document))
    return load_coco(tmp_path / "train.json", tmp_path, split="train")


def config_for(*, short_edge=64, long_edge=9999, multi_scale=(), data=None):
    return make_config(
        model={
            "input": {
                "short_edge": short_edge,
                "long_edge": long_edge,
                "multi_scale": list(multi_scale),
            }
        },
        data=data or {},
    )


def seen(config, coco):
    images, targets = next(iter(training_loader(config, coco, CPU)))
    height, width = images[0].shape[1:]
    return (width, height), targets[0]["boxes"].tolist()


@pytest.mark.parametrize(
    ("settings", "size_wh", "box"),
    [
        ({}, (128, 64), [20, 10, 60, 60]),
        ({"long_edge": 64}, (64, 32), [10, 5, 30, 30]),
        ({"multi_scale": (32, 64, 128)}, (256, 128), [40, 20, 120, 120]),
        ({"data": {"reduce_jpegs": False}}, (512, 256), [80, 40, 240, 240]),
    ],
)
def test_training_decodes_large_jpegs_at_the_largest_size_it_needs(
    large_jpeg, settings, size_wh, box
):
    config = config_for(**settings)
    without_flips = config.data.model_copy(
        update={"augment": config.data.augment.model_copy(update={"horizontal_flip": 0.0})}
    )
    config = config.model_copy(update={"data": without_flips})
    assert seen(config, large_jpeg) == (size_wh, [box])


def test_evaluation_decodes_every_pixel(large_jpeg):
    loader = evaluation_loader(config_for().data, large_jpeg, CPU, batch_size=1)
    images, targets = next(iter(loader))
    assert images[0].shape == (3, 256, 512)
    assert targets[0]["boxes"].tolist() == [[80, 40, 240, 240]]


def test_jitter_may_enlarge_the_longer_edge_by_its_greatest_factor():
    jitter = {"augment": {"large_scale_jitter": [0.1, 1.5]}}
    assert largest_training_size(config_for(short_edge=101, data=jitter)) == (152, 152)


def test_a_jittered_picture_has_the_size_that_was_asked_for(large_jpeg):
    config = config_for(data={"augment": {"large_scale_jitter": [0.5, 1.0]}})
    assert seen(config, large_jpeg)[0] == (64, 64)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_memory_is_pinned_for_cuda_alone(large_jpeg, device):
    loader = training_loader(config_for(), large_jpeg, torch.device(device)).loader
    assert loader.pin_memory == (device == "cuda")


def test_what_is_set_about_workers_reaches_the_loader(large_jpeg):
    settings = {"prefetch_factor": 3, "persistent_workers": False, "pin_memory": False}
    config = config_for(data={"num_workers": 1, **settings})
    loader = training_loader(config, large_jpeg, torch.device("cuda")).loader
    assert {name: getattr(loader, name) for name in settings} == settings


def test_workers_live_on_between_epochs_of_training_but_not_of_evaluation(large_jpeg):
    config = config_for(data={"num_workers": 1})
    assert training_loader(config, large_jpeg, CPU).loader.persistent_workers
    evaluating = evaluation_loader(config.data, large_jpeg, CPU, batch_size=1)
    assert not evaluating.loader.persistent_workers
