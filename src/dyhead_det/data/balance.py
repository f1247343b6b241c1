"""How often an image comes an epoch, so that rare classes are seen more than they are found."""

import numpy as np

from dyhead_det.data.coco.dataset import CocoDataset
from dyhead_det.data.coco.records import Integers
from dyhead_det.data.samplers import Counts, Groups


def repeat_factors(dataset: CocoDataset, threshold: float) -> Counts:
    """Repeat images of classes that few images have (Gupta et al., LVIS, arXiv 1908.03195).

    A class in a share f of the images repeats them ``max(1, sqrt(threshold / f))`` times; an image
    follows the rarest of its classes.

    Args:
        dataset: N images.
        threshold: the share of images below which a class is rare.

    Returns:
        At least 1 each, (N,).
    """
    images, labels = _images_and_classes(dataset)
    share = np.bincount(labels, minlength=len(dataset.categories)) / len(dataset)  # (K,)
    factors = np.ones(len(dataset))
    np.maximum.at(factors, images, np.sqrt(threshold / share[labels]))
    return factors


def class_balanced_counts(dataset: CocoDataset) -> Counts:
    """Let all classes be asked for equally often, each answered by its images in turn.

    An image of several classes answers for each of them. Images without an object come once, and
    an epoch is as long as the data set.

    Returns:
        Above zero, (N,).
    """
    images, labels = _images_and_classes(dataset)
    images_of_class = np.bincount(labels, minlength=len(dataset.categories))  # (K,)
    answers = np.bincount(images, 1 / images_of_class[labels], minlength=len(dataset))  # (N,)
    num_with_objects = len(np.unique(images))
    num_classes = max(1, len(np.unique(labels)))
    return np.where(answers > 0, answers * (num_with_objects / num_classes), 1.0)


def aspect_ratio_groups(dataset: CocoDataset) -> Groups:
    """Return 1 for images wider than high and 0 for the others, (N,)."""
    width, height = dataset.sizes_wh.T
    groups: Groups = (width > height).astype(np.int64)
    return groups


def _images_and_classes(dataset: CocoDataset) -> tuple[Integers, Integers]:
    """Return each pair of an image and a class that it has an object of, crowds left out."""
    num_classes = len(dataset.categories)
    image_of_row = dataset.image_indices
    is_object = ~dataset.is_crowd
    pairs = np.unique(image_of_row[is_object] * num_classes + dataset.labels[is_object])
    return pairs // num_classes, pairs % num_classes
