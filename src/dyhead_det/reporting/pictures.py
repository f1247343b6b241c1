"""Pictures of a run: the first batch as the detector gets it, and what the detector finds."""

import itertools
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from dyhead_det.data.coco.dataset import CocoDataset
from dyhead_det.data.images import read_image
from dyhead_det.errors import DatasetError
from dyhead_det.evaluation.analysis.outcomes import ImageOutcomes, assign_outcomes, image_outcomes
from dyhead_det.evaluation.ground_truth import CocoResult
from dyhead_det.evaluation.matching import IOU_THRESHOLDS, match
from dyhead_det.models.detectors import Detector
from dyhead_det.visualize.draw import draw_detections
from dyhead_det.visualize.sheet import ImageWithOutcomes, Outcome, contact_sheet, outcome_sheet

logger = logging.getLogger(__name__)

# Weaker boxes count in AP, but would hide everything in a picture.
SHOWN_SCORE = 0.3
# More pictures on one sheet, or larger ones, would not be looked at.
MOST_OF_A_BATCH = 16
_MOST_SHOWN = 12
_SHEET_WIDTH = 1600

# What a detector's own transform returns in training: labels are torchvision's there.
ModelInput = tuple[ImageList, list[dict[str, Tensor]]]


def call_with_next_batch(detector: Detector, use: Callable[[ModelInput], None]) -> None:
    """Call `use` once, with what the next batch is after the detector's resizing and padding.

    Of a batch that is taken in parts it is the first part.
    """

    def hook(_transform: nn.Module, _inputs: object, output: ModelInput) -> None:
        if output[0].tensors.is_meta:  # somebody asks for sizes alone, before the batch comes
            return
        handle.remove()
        use(output)

    handle = detector.transform.register_forward_hook(hook)


def draw_batch(
    transform: GeneralizedRCNNTransform,
    batch: ModelInput,
    file_names: Sequence[str],
    class_names: Sequence[str],
    *,
    first_label: int,
    most: int = MOST_OF_A_BATCH,
) -> Image.Image:
    """Draw a training batch with its boxes, in the colors that a person expects.

    Args:
        transform: of the detector, which has made the batch.
        batch: normalized images, padded to one size, and the boxes in these pixels.
        file_names: of the images.
        class_names: in label order.
        first_label: what label 0 is called in the batch.
        most: images on the sheet.
    """
    images, targets = batch
    mean, std = (
        torch.tensor(values, device=images.tensors.device)[:, None, None]
        for values in (transform.image_mean, transform.image_std)
    )
    pixels = (images.tensors[:most].float() * std + mean).clamp(0, 1) * 255
    height, width = pixels.shape[-2:]
    columns = max(2, math.ceil(math.sqrt(len(pixels))))
    tile = _SHEET_WIDTH // columns
    pictures, titles = [], []
    for image, (h, w), target, name in zip(
        pixels.round().byte().cpu(), images.image_sizes, targets, file_names, strict=False
    ):
        labels = target["labels"].cpu() - first_label
        pictures.append(
            draw_detections(
                image, target["boxes"].cpu(), labels, None, class_names, longer_edge=tile
            )
        )
        titles.append(f"{len(labels)} boxes, {w} x {h} padded to {width} x {height}, {name}")
    return contact_sheet(pictures, titles, columns=columns, tile=tile)


def draw_validation(dataset: CocoDataset, detections: Iterable[CocoResult]) -> Image.Image | None:
    """Draw hits, misses and false detections in a few images, always the same ones.

    Args:
        dataset: what was evaluated on.
        detections: with the ids of the data set; those below `SHOWN_SCORE` are left out.

    Returns:
        The sheet, None where no image can be read.
    """
    matches = match(
        dataset.ground_truth(),
        [detection for detection in detections if detection["score"] >= SHOWN_SCORE],
        category_ids=[category.dataset_id for category in dataset.categories],
        thresholds=IOU_THRESHOLDS[:1],
    )
    outcomes = assign_outcomes(matches, SHOWN_SCORE)
    images = [
        ImageWithOutcomes(
            title=str(dataset.file_names[index]),
            image=image,
            outcomes=_marked(
                image_outcomes(
                    matches,
                    outcomes,
                    int(np.searchsorted(matches.image_ids, dataset.image_ids[index])),
                ),
                dataset.categories.names,
            ),
        )
        for index, image in readable_images(dataset, _spread(dataset))
    ]
    if not images:
        return None
    return outcome_sheet(
        images,
        width=_SHEET_WIDTH,
        note=f"(scores from {SHOWN_SCORE:.0%}, IoU from {IOU_THRESHOLDS[0]:.0%} on)",
    )


def _marked(image: ImageOutcomes, names: Sequence[str]) -> list[Outcome]:
    """Name what became of the objects and detections of an image, misses first."""
    missed = [
        Outcome("missed", each.box, names[each.label])
        for each in image.objects
        if not each.is_right
    ]
    detected = [
        Outcome(
            "hit" if each.is_right else "false",
            each.box,
            f"{names[each.label]} {each.score:.0%}",
        )
        for each in image.detections
    ]
    return [*missed, *detected]


def _spread(dataset: CocoDataset) -> list[int]:
    """Choose images over the whole data set, those with annotations if there are any."""
    candidates: NDArray[np.integer] = np.flatnonzero(np.diff(dataset.offsets))
    if not len(candidates):
        candidates = np.arange(len(dataset))
    positions = np.linspace(0, len(candidates) - 1, min(_MOST_SHOWN, len(candidates)))
    chosen: list[int] = candidates[positions.round().astype(int)].tolist()
    return chosen


def readable_images(dataset: CocoDataset, chosen: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """Read images; in place of one that cannot be read comes another one, if one of two can."""
    others = (index for index in range(len(dataset)) if index not in chosen)
    for index in chosen:
        for candidate in itertools.chain([index], itertools.islice(others, 2)):
            file, size_wh = dataset.image_file(candidate), dataset.size_wh(candidate)
            try:
                image = read_image(file, annotated_size=size_wh)
            except DatasetError as error:
                logger.warning("left out: %s", error)
            else:
                yield candidate, image
                break
