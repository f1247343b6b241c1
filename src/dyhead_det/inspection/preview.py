"""`data preview`: a sheet of images with their boxes, as annotated or as the detector gets them."""

import logging
import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import Literal

import numpy as np
import torch
from PIL import Image

from dyhead_det.config.schema import RunConfig
from dyhead_det.data.build_loaders import training_dataset
from dyhead_det.data.class_choice import choose_classes
from dyhead_det.data.coco.dataset import CocoDataset
from dyhead_det.data.detection_dataset import BrokenImage
from dyhead_det.errors import DatasetError
from dyhead_det.escaping import listed
from dyhead_det.inspection.targets import Target
from dyhead_det.models.detectors import transform_of_model
from dyhead_det.reporting.pictures import draw_batch, readable_images
from dyhead_det.visualize.draw import Mark, class_color, draw_marks
from dyhead_det.visualize.sheet import contact_sheet

logger = logging.getLogger(__name__)

_SHEET_WIDTH = 1600


def draw_preview(
    target: Target,
    split: Literal["train", "val"],
    *,
    number: int,
    seed: int,
    classes: Sequence[str] = (),
    is_augmented: bool = False,
) -> Image.Image:
    """Draw some images of a part of a data set with their boxes and names.

    Args:
        target: what to look at.
        split: the part.
        number: of images, at most.
        seed: another one, other images.
        classes: names, as they are typed; only these objects and images with one of them.
        is_augmented: as the detector of the run gets them in training.

    Raises:
        DatasetError: if there is no such class, no image of it, or no image can be read.
    """
    dataset = target.load(split)
    if classes:
        names = tuple(dict.fromkeys(dataset.categories.split_names(classes)))
        dataset = choose_classes(dataset, names, option="--classes")
    chosen = choose_images(dataset, number=number, seed=seed, by_class=bool(classes))
    if is_augmented:
        return draw_augmented(dataset, chosen, target.config, seed=seed)
    return draw_annotated(dataset, chosen)


def choose_images(dataset: CocoDataset, *, number: int, seed: int, by_class: bool) -> list[int]:
    """Choose images by chance, whatever is in them or from all classes in turn.

    Raises:
        DatasetError: if no image has an object of any class, and that is asked for.
    """
    chance = np.random.default_rng(seed)
    if not by_class:
        chosen: list[int] = chance.permutation(len(dataset))[:number].tolist()
        return chosen
    image_of_row = dataset.image_indices
    queues = [
        chance.permutation(np.unique(image_of_row[dataset.labels == label])).tolist()
        for label in range(len(dataset.categories))
    ]
    in_turn = [i for places in zip_longest(*queues) for i in places if i is not None]
    if not in_turn:
        names = listed(dataset.categories.names)
        raise DatasetError(f"{dataset.annotations_path}: no image has an object of {names}")
    return list(dict.fromkeys(in_turn))[:number]


def draw_annotated(dataset: CocoDataset, chosen: Sequence[int]) -> Image.Image:
    """Draw images with their boxes and names as annotated, crowds dashed.

    Raises:
        DatasetError: if no image can be read.
    """
    columns = _columns(len(chosen))
    tile = _SHEET_WIDTH // columns
    pictures, titles = [], []
    for index, image in readable_images(dataset, chosen):
        marks = _marks(dataset, index)
        width, height = dataset.size_wh(index)
        # Titles end in what may be cut: a name.
        number = f"{len(marks)} box{'es' * (len(marks) != 1)}"
        titles.append(f"{number}, {width} x {height}, {dataset.file_names[index]}")
        pictures.append(draw_marks(image, marks, longer_edge=tile))
    if not pictures:
        raise DatasetError(f"{dataset.annotations_path}: none of the chosen images can be read")
    return contact_sheet(pictures, titles, columns=columns, tile=tile)


def draw_augmented(
    dataset: CocoDataset, chosen: Sequence[int], config: RunConfig, *, seed: int
) -> Image.Image:
    """Draw images as the detector of a run gets them in training: augmented, resized, padded.

    Args:
        dataset: the training data of the run.
        chosen: images; their crowds are no targets.
        config: the run.
        seed: what augmentation and size follow from.

    Raises:
        DatasetError: if no image can be read.
    """
    samples = training_dataset(config, dataset)
    names, images, targets = [], [], []
    for index in chosen:
        sample = samples[(seed, 0, index)]
        if isinstance(sample, BrokenImage):
            logger.warning("left out: %s", sample.reason)
            continue
        names.append(dataset.file_names[index])
        images.append(sample.image.to(torch.float32) / 255)
        targets.append({key: sample.target[key] for key in ("boxes", "labels")})
    if not images:
        raise DatasetError(f"{dataset.annotations_path}: none of the chosen images can be read")
    transform = transform_of_model(config.model).train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the transform draws a size for each image
        batch = transform(images, targets)
    return draw_batch(
        transform, batch, names, dataset.categories.names, first_label=0, most=len(names)
    )


def _marks(dataset: CocoDataset, index: int) -> list[Mark]:
    names = dataset.categories.names
    rows = slice(dataset.offsets[index], dataset.offsets[index + 1])
    columns = (dataset.boxes_xywh[rows], dataset.labels[rows], dataset.is_crowd[rows])
    return [
        Mark(
            (x, y, x + width, y + height),
            f"{names[label]} (crowd)" if is_crowd else names[label],
            class_color(label),
            is_dashed=is_crowd,
        )
        for (x, y, width, height), label, is_crowd in zip(
            *(column.tolist() for column in columns), strict=True
        )
    ]


def _columns(number: int) -> int:
    return max(2, math.ceil(math.sqrt(number)))
