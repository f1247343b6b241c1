"""Data sets split, merged and reduced, whatever their format."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from dyhead_det.data.class_choice import choose_classes
from dyhead_det.data.coco.dataset import CocoDataset
from dyhead_det.data.stratified_split import held_out
from dyhead_det.errors import ConfigError

Datasets = Mapping[str, CocoDataset]


def split_dataset(
    dataset: CocoDataset, *, val: float, test: float = 0.0, group: str | None = None, seed: int = 0
) -> dict[str, CocoDataset]:
    """Split images into training, validation and test data, each class in the same shares.

    The validation data are those that `data.val: {split: 0.2}` would hold out of all images.

    Args:
        dataset: the images.
        val: share of the validation data.
        test: share of the test data.
        group: images in whose file names this regular expression finds the same stay together.
        seed: another seed, another choice.

    Raises:
        ConfigError: if the shares leave nothing for training.
        DatasetError: if a part would be empty.
    """
    if not 0 < val < 1 or not 0 <= test < 1 or val + test >= 1:
        raise ConfigError(f"shares of {val} and {test} leave nothing to train on")
    is_val = held_out(dataset, val, group=group, seed=seed)
    rest = dataset.select_images(~is_val)
    parts = {"train": rest, "val": replace(dataset.select_images(is_val), split="val")}
    if test:
        is_test = held_out(rest, test / (1 - val), group=group, seed=seed)
        parts["train"] = rest.select_images(~is_test)
        parts["test"] = rest.select_images(is_test)
    return parts


def merge_datasets(several: Sequence[Datasets]) -> dict[str, list[CocoDataset]]:
    """Put the parts of the same name together, in the order that they are given."""
    names = dict.fromkeys(name for parts in several for name in parts)
    return {name: [parts[name] for parts in several if name in parts] for name in names}


def reduce_dataset(
    dataset: CocoDataset,
    *,
    classes: tuple[str, ...] | None = None,
    keeps_empty: bool = False,
    num_images: int | None = None,
    share: float | None = None,
    seed: int = 0,
) -> CocoDataset:
    """Return fewer classes or images.

    Args:
        dataset: what to choose from.
        classes: to keep, in this order, and the images that show one of them; None keeps all.
        keeps_empty: keep the images that show none of the classes too.
        num_images: to keep at most, each class in the same share.
        share: of the images to keep.
        seed: another seed, other images.

    Raises:
        DatasetError: if there is no such class, or no image would be left.
    """
    if classes is not None:
        dataset = choose_classes(dataset, classes, option="--classes")
        if not keeps_empty:
            dataset = dataset.without_empty_images()
    if share is not None:
        num_images = max(1, round(share * len(dataset)))
    if num_images is None or num_images >= len(dataset):
        return dataset
    is_kept = held_out(dataset, num_images / len(dataset), seed=seed)
    # The shares of the classes may ask for an image more or less.
    draw = np.random.default_rng(seed)
    by_name = np.argsort(np.array(list(dataset.file_names), dtype=object), kind="stable")
    for _ in range(abs(int(is_kept.sum()) - num_images)):
        is_too_many = int(is_kept.sum()) > num_images
        is_kept[draw.choice(by_name[is_kept[by_name] == is_too_many])] ^= True
    return dataset.select_images(is_kept)
