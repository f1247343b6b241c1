"""A share of the images of a data set, with the same share of each class, groups kept together.

The greedy algorithm of Sechidis, Tsoumakas and Vlahavas (On the Stratification of Multi-Label Data,
ECML PKDD 2011): the rarest class is shared out first, each of its groups to the side that lacks it
most. An image counts once for each class that it shows; images that show none are a class too.
"""

import re

import numpy as np
from numpy.typing import NDArray

from dyhead_det.data.coco.dataset import CocoDataset
from dyhead_det.data.coco.records import Flags
from dyhead_det.data.stores.folder import composed
from dyhead_det.errors import DatasetError
from dyhead_det.escaping import printable


def held_out(
    dataset: CocoDataset, share: float, *, group: str | None = None, seed: int = 0
) -> Flags:
    """Choose a share of the images; the same names, classes and seed give the same choice.

    Args:
        dataset: the images, in any order.
        share: of the images, above 0 and below 1.
        group: a regular expression; images in whose file names it finds the same (its first group,
            if it has one) are on one side. A name in which it finds nothing stands for itself.
        seed: another seed, another choice.

    Returns:
        Which images are in the share, (N,).

    Raises:
        DatasetError: if there are not two groups.
    """
    group_of_image, num_groups = _groups(dataset, group)
    shows = _classes_shown(dataset)  # (N, K + 1)
    counts = np.zeros((num_groups, shows.shape[1] + 1))  # the last column counts images
    np.add.at(counts, group_of_image, np.column_stack([shows, np.ones(len(dataset))]))
    if num_groups < 2:
        what = "group of images" if group else "image"
        raise DatasetError(
            f"{dataset.annotations_path}: no share can be taken of {num_groups} {what}; both sides "
            "need one"
        )
    is_held_out = _share_out(counts, share, np.random.default_rng(seed))
    if is_held_out.all() or not is_held_out.any():
        is_held_out[_most_ordinary(counts)] ^= True
    return is_held_out[group_of_image]


def _groups(dataset: CocoDataset, pattern: str | None) -> tuple[NDArray[np.int64], int]:
    """Return the group of each image, (N,), numbered by name, and how many there are."""
    names = [composed(name) for name in dataset.file_names]
    if pattern is not None:
        expression = re.compile(pattern)
        found = [expression.search(name) for name in names]
        if not any(found):
            raise DatasetError(
                f"{dataset.annotations_path}: the group pattern {printable(pattern)} is found in "
                f"no file name, such as {printable(names[0], max_length=160)}"
            )
        keys = [
            name if match is None else f"\0{(expression.groups and match[1]) or match[0]}"
            for name, match in zip(names, found, strict=True)
        ]
    else:
        keys = names
    number_of_key = {key: number for number, key in enumerate(sorted(set(keys)))}
    return np.array([number_of_key[key] for key in keys], dtype=np.int64), len(number_of_key)


def _classes_shown(dataset: CocoDataset) -> Flags:
    """Return which classes each image shows, and in the last column whether it shows none."""
    shows = np.zeros((len(dataset), len(dataset.categories) + 1), dtype=np.bool_)
    image_of_row = dataset.image_indices
    is_object = ~dataset.is_crowd
    shows[image_of_row[is_object], dataset.labels[is_object]] = True
    shows[:, -1] = ~shows.any(axis=1)
    return shows


def _share_out(counts: NDArray[np.float64], share: float, draw: np.random.Generator) -> Flags:
    """Return which groups are in the share, (G,), from their numbers by class, (G, K)."""
    num_groups = len(counts)
    shares = np.array([share, 1 - share])
    lacking = shares[:, None] * counts.sum(axis=0)  # (2, K), what each side still lacks
    order = draw.permutation(num_groups)
    # Large groups first: small ones make up for what they spoil.
    order = order[np.argsort(-counts[order, -1], kind="stable")]
    is_left = np.ones(num_groups, dtype=np.bool_)
    is_held_out = np.zeros(num_groups, dtype=np.bool_)
    num_left = (counts > 0).sum(axis=0).astype(np.float64)  # groups of each class
    while is_left.any():
        rarest = int(np.argmin(np.where(num_left > 0, num_left, np.inf)))
        for index in order[is_left[order] & (counts[order, rarest] > 0)]:
            # The greater side wins a draw: the only image of a class is there to be learned from.
            side = max(range(2), key=lambda s: (lacking[s, rarest], lacking[s, -1], shares[s]))
            is_held_out[index] = side == 0
            lacking[side] -= counts[index]
            is_left[index] = False
            num_left -= counts[index] > 0
    return is_held_out


def _most_ordinary(counts: NDArray[np.float64]) -> int:
    """Return the group whose rarest class is most frequent, which is missed least."""
    rarest = np.where(counts > 0, counts.sum(axis=0), np.inf).min(axis=1)
    return int(np.argmax(rarest))
