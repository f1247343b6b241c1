"""A data set to be scored, with the classes of the detector that is scored on it."""

import itertools
import logging
from dataclasses import replace

import numpy as np

from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.data.coco.dataset import CocoDataset
from dyhead_det.errors import DatasetError
from dyhead_det.escaping import listed

logger = logging.getLogger(__name__)


def aligned_to(dataset: CocoDataset, categories: CategoryMap) -> CocoDataset:
    """Return a data set with exactly the classes of a detector, matched by name.

    A class that the file does not list gets an id that is free and has no objects; its AP is
    undefined. Objects of classes that the detector does not have are left out: it cannot find
    them, and they say nothing about those that it can. Both are counted in a warning.

    Args:
        dataset: images and annotations as they were read.
        categories: the detector's classes, in label order.

    Raises:
        DatasetError: if the two have no class in common.
    """
    own = dataset.categories
    if own == categories:
        return dataset
    shared = [name for name in categories.names if name in own.label_of_name]
    if not shared:
        raise DatasetError(
            f"{dataset.annotations_path} has none of the detector's classes: it has "
            f"{listed(own.names)}; the detector has {listed(categories.names)}; rename the "
            f"categories of the file, or evaluate on other data"
        )
    _warn(dataset, categories)
    used = own.label_of_dataset_id
    free_ids = (number for number in itertools.count(1) if number not in used)
    aligned = CategoryMap(
        tuple(
            own[own.label_of_name[name]]
            if name in own.label_of_name
            else Category(name, next(free_ids))
            for name in categories.names
        )
    )
    return relabeled(dataset, aligned)


def relabeled(dataset: CocoDataset, categories: CategoryMap) -> CocoDataset:
    """Return all images with the objects of some classes, labeled in the order of `categories`.

    Args:
        dataset: its objects of classes that `categories` does not name are left out.
        categories: matched by name; the ids are taken over.
    """
    new_label = np.array(
        [categories.label_of_name.get(name, -1) for name in dataset.categories.names],
        dtype=np.int64,
    )
    labels = new_label[dataset.labels]
    kept = dataset.select_annotations(labels >= 0)
    return replace(kept, categories=categories, labels=labels[labels >= 0])


def _warn(dataset: CocoDataset, categories: CategoryMap) -> None:
    own = dataset.categories
    absent = [name for name in categories.names if name not in own.label_of_name]
    if absent:
        logger.warning(
            "%s does not list %d of the detector's %d classes, which have no AP there: %s",
            dataset.annotations_path,
            len(absent),
            len(categories),
            listed(absent),
        )
    num_objects = np.bincount(dataset.labels, minlength=len(own)).tolist()
    unknown = [
        f"{name} ({number} boxes)"
        for name, number in zip(own.names, num_objects, strict=True)
        if name not in categories.label_of_name
    ]
    if unknown:
        logger.warning(
            "%s lists classes that the detector does not have, left out: %s",
            dataset.annotations_path,
            listed(unknown),
        )
