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

from dyhead_det.contracts import Prediction, Target
from dyhead_det.data.coco.dataset import CocoDataset
from dyhead_det.data.images import read_image
from dyhead_det.errors import DatasetError
from dyhead_det.evaluation.ground_truth import CocoResult
from dyhead_det.evaluation.matching import IOU_THRESHOLD, match_image
from dyhead_det.models.detectors import Detector
from dyhead_det.visualize.draw import draw_detections
from dyhead_det.visualize.sheet import Outcome, Scored, contact_sheet, outcome_sheet

logger = logging.getLogger(__name__)

# Weaker boxes count in AP, but would hide everything in a picture.
SHOWN_SCORE = 0.3
# More pictures on one sheet, or larger ones, would not be looked at.
_MOST_OF_A_BATCH = 16
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
    detector: Detector, batch: ModelInput, file_names: Sequence[str], class_names: Sequence[str]
) -> Image.Image:
    """Draw a training batch with its boxes, in the colors that a person expects.

    Args:
        detector: whose transform has made the batch.
        batch: normalized images, padded to one size, and the boxes in these pixels.
        file_names: of the images.
        class_names: in label order.
    """
    images, targets = batch
    mean, std = (
        torch.tensor(values, device=images.tensors.device)[:, None, None]
        for values in (detector.transform.image_mean, detector.transform.image_std)
    )
    pixels = (images.tensors[:_MOST_OF_A_BATCH].float() * std + mean).clamp(0, 1) * 255
    height, width = pixels.shape[-2:]
    columns = max(2, math.ceil(math.sqrt(len(pixels))))
    tile = _SHEET_WIDTH // columns
    pictures, titles = [], []
    for image, (h, w), target, name in zip(
        pixels.round().byte().cpu(), images.image_sizes, targets, file_names, strict=False
    ):
        labels = target["labels"].cpu() - detector.first_label
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
    strong: dict[int, list[CocoResult]] = {}
    for detection in detections:
        if detection["score"] >= SHOWN_SCORE:
            strong.setdefault(detection["image_id"], []).append(detection)
    images = [
        Scored(
            title=str(dataset.file_names[index]),
            image=image,
            outcomes=_outcomes(dataset, index, strong.get(int(dataset.image_ids[index]), [])),
        )
        for index, image in readable_images(dataset, _spread(dataset))
    ]
    if not images:
        return None
    return outcome_sheet(
        images,
        width=_SHEET_WIDTH,
        note=f"(scores from {SHOWN_SCORE:.0%}, IoU from {IOU_THRESHOLD:.0%} on)",
    )


def _outcomes(dataset: CocoDataset, index: int, detections: list[CocoResult]) -> list[Outcome]:
    """Return hits, misses and false detections of an image; detections in crowds are neither."""
    truth, prediction = dataset.target(index), _as_prediction(detections, dataset)
    is_right, is_in_crowd, is_found = match_image(truth, prediction, _crowds(dataset, index))
    names = dataset.categories.names
    missed = [
        Outcome("missed", _xyxy(box), names[label])
        for box, label in zip(
            truth["boxes"][~is_found], truth["labels"][~is_found].tolist(), strict=True
        )
    ]
    detected = [
        Outcome("hit" if hit else "false", _xyxy(box), f"{names[label]} {score:.0%}")
        for box, label, score, hit, ignored in zip(
            prediction["boxes"],
            prediction["labels"].tolist(),
            prediction["scores"].tolist(),
            is_right.tolist(),
            is_in_crowd.tolist(),
            strict=True,
        )
        if not ignored
    ]
    return [*missed, *detected]


def _crowds(dataset: CocoDataset, index: int) -> Target:
    """Return the crowd regions of an image."""
    rows = np.arange(dataset.offsets[index], dataset.offsets[index + 1])
    rows = rows[dataset.is_crowd[rows]]
    return Target(
        boxes=torch.from_numpy(dataset.boxes[rows]), labels=torch.from_numpy(dataset.labels[rows])
    )


def _xyxy(box: Tensor) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = box.tolist()
    return x1, y1, x2, y2


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
            path, size_wh = dataset.path(candidate), dataset.size_wh(candidate)
            try:
                image = read_image(path, annotated_size=size_wh)
            except DatasetError as error:
                logger.warning("left out: %s", error)
            else:
                yield candidate, image
                break


def _as_prediction(detections: list[CocoResult], dataset: CocoDataset) -> Prediction:
    """Turn COCO results of one image back into boxes, best first."""
    best_first = sorted(detections, key=lambda detection: -detection["score"])
    boxes_xyxy = [
        (x, y, x + width, y + height)
        for x, y, width, height in (detection["bbox"] for detection in best_first)
    ]
    label_of = dataset.categories.label_of_dataset_id
    return Prediction(
        boxes=torch.tensor(boxes_xyxy, dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor([detection["score"] for detection in best_first]),
        labels=torch.tensor(
            [label_of[detection["category_id"]] for detection in best_first], dtype=torch.int64
        ),
    )
