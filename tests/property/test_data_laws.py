"""Laws of the data package over generated inputs."""

import contextlib
import json
import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dyhead_det.data.coco.dataset import load_coco
from dyhead_det.data.images import rgb_tensor
from dyhead_det.data.samplers import EpochBatchSampler, SequentialBatchSampler
from dyhead_det.data.transforms import build_augmentation
from dyhead_det.errors import DatasetError

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
numbers = st.integers(-50, 150) | st.floats(-50, 150) | st.sampled_from([math.nan, math.inf, 1e300])

KEYS = ["id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation"]
KEYS += ["name", "file_name", "width", "height"]


@st.composite
def annotations(draw):
    return {
        "id": draw(st.integers(-2, 40)),
        "image_id": draw(st.sampled_from([7, 4])),
        "category_id": draw(st.sampled_from([9, 3])),
        "bbox": draw(st.lists(numbers, min_size=4, max_size=4)),
        "iscrowd": draw(st.integers(0, 1)),
    }


def document(records):
    # The last annotation keeps the coordinates from looking relative.
    anchor = {"id": 50, "image_id": 4, "category_id": 9, "bbox": [1, 2, 30, 40]}
    return {
        "images": [
            {"id": 7, "file_name": "one.png", "width": 100, "height": 50},
            {"id": 4, "file_name": "two.png", "width": 60, "height": 80},
        ],
        "annotations": [*records, anchor],
        "categories": [{"id": 9, "name": "cat"}, {"id": 3, "name": "dog"}],
    }


def load(content, folder):
    path = folder / "file.json"
    path.write_text(json.dumps(content))
    return load_coco(path, folder, split="train")


@settings(max_examples=60, deadline=None)
@given(records=st.lists(annotations(), max_size=8))
def test_boxes_lie_inside_their_image_and_have_area(tmp_path_factory, records):
    dataset = load(document(records), tmp_path_factory.mktemp("coco"))
    for index in range(len(dataset)):
        boxes, (width, height) = dataset.target(index)["boxes"], dataset.size_wh(index)
        assert torch.all(boxes[:, :2] >= 0)
        assert torch.all(boxes[:, 2:] <= torch.tensor([width, height]))
        assert torch.all(boxes[:, 2:] > boxes[:, :2])
    assert np.all(dataset.areas > 0)
    assert len(set(dataset.annotation_ids.tolist())) == len(dataset.labels)
    assert all(dataset.annotation_ids > 0)


@settings(max_examples=60, deadline=None)
@given(records=st.lists(annotations(), max_size=8))
def test_reading_what_was_repaired_changes_nothing(tmp_path_factory, records):
    folder = tmp_path_factory.mktemp("coco")
    repaired = load(document(records), folder).ground_truth()
    assert load(repaired, folder).ground_truth() == repaired


@settings(max_examples=60, deadline=None)
@given(
    section=st.sampled_from(["images", "annotations", "categories"]),
    key=st.sampled_from(KEYS),
    value=anything,
)
def test_any_value_anywhere_is_read_or_refused(tmp_path_factory, section, key, value):
    content = document([{"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4]}])
    content[section][0][key] = value
    if key == "segmentation":
        del content[section][0]["id" if section != "annotations" else "bbox"]
    folder = tmp_path_factory.mktemp("coco")
    with contextlib.suppress(DatasetError):  # nothing else may be raised
        dataset = load(content, folder)
        assert len(dataset.ground_truth()["images"]) == len(dataset)


sizes = st.tuples(st.integers(1, 200), st.integers(1, 9), st.integers(1, 5))


orders = st.sampled_from(["plain", "counts", "groups", "both"])


def epoch_sampler(sizes, order, **keywords):
    num_images, batch_size, world_size = sizes
    index = np.arange(num_images)
    counts = 0.3 + index % 5 if order in ("counts", "both") else None
    groups = index % 3 if order in ("groups", "both") else None
    return EpochBatchSampler(
        num_images,
        batch_size=batch_size,
        seed=1,
        counts=counts,
        groups=groups,
        world_size=world_size,
        **keywords,
    )


@given(sizes=sizes, epoch=st.integers(0, 5), order=orders)
def test_shards_cover_an_epoch_in_equally_many_steps(sizes, epoch, order):
    num_images, batch_size, world_size = sizes
    shards = [
        list(epoch_sampler(sizes, order, epoch=epoch, rank=rank)) for rank in range(world_size)
    ]
    assert len({len(shard) for shard in shards}) == 1
    assert all(len(batch) <= -(-batch_size // world_size) for shard in shards for batch in shard)
    alone = list(epoch_sampler((num_images, batch_size, 1), order, epoch=epoch))
    for step, batch in enumerate(alone):
        assert [key for shard in shards for key in shard[step]] == batch
    if order in ("plain", "groups"):
        assert sorted(index for batch in alone for _, _, index in batch) == list(range(num_images))


@given(sizes=sizes, start=st.integers(0, 1000), order=orders)
def test_an_epoch_from_any_position_is_the_rest_of_the_whole(sizes, start, order):
    whole = epoch_sampler(sizes, order, epoch=2)
    batches = list(whole)
    start_step = start % (len(batches) + 1)
    whole.set_epoch(2, start_step=start_step)
    assert list(whole) == batches[start_step:]
    assert len(whole) == len(batches) - start_step


@given(sizes=sizes)
def test_groups_reorder_what_comes_and_change_nothing_else(sizes):
    plain, grouped = (
        sorted(key for batch in epoch_sampler((*sizes[:2], 1), order) for key in batch)
        for order in ("counts", "both")
    )
    assert grouped == plain


@given(sizes=sizes)
def test_sequential_shards_are_a_partition(sizes):
    num_images, batch_size, world_size = sizes
    shards = [
        SequentialBatchSampler(num_images, batch_size=batch_size, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    alone = SequentialBatchSampler(num_images, batch_size=batch_size, rank=0, world_size=1)
    assert sorted(batch for shard in shards for batch in shard) == list(alone)
    indices = [index for batch in alone for _, _, index in batch]
    assert indices == list(range(num_images))
    assert [len(shard) for shard in shards] == [len(list(shard)) for shard in shards]


@settings(max_examples=30, deadline=None)
@given(
    xs=st.lists(st.integers(0, 33), min_size=2, max_size=2, unique=True),
    ys=st.lists(st.integers(0, 32), min_size=2, max_size=2, unique=True),
    flips=st.sampled_from([(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]),
)
def test_flipping_twice_gives_the_sample_back(xs, ys, flips):
    (left, right), (top, bottom) = sorted(xs), sorted(ys)
    boxes = torch.tensor([[left, top, right, bottom]], dtype=torch.float32)
    image = torch.arange(3 * 32 * 33).reshape(3, 32, 33).to(torch.uint8)
    augment = build_augmentation(
        horizontal_flip=flips[0],
        vertical_flip=flips[1],
        photometric=False,
        large_scale_jitter=None,
        size=33,
    )
    target = {"boxes": boxes, "labels": torch.tensor([1]), "image_id": 5}
    image_again, target_again = augment(*augment(image, target))
    assert torch.equal(image_again, image)
    assert torch.equal(target_again["boxes"], boxes)


@given(values=st.lists(st.integers(0, 65535), min_size=1, max_size=20))
def test_sixteen_bits_keep_their_order(values):
    image = rgb_tensor(Image.fromarray(np.array([values], dtype=np.uint16)))[0, 0]
    brighter = np.argsort(values, kind="stable")
    assert torch.all(image[brighter.copy()].int().diff() >= 0)
