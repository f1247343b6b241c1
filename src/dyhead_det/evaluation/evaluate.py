"""Run a detector over a data set and score it: one evaluator for training and for `eval`.

Detections are gathered in COCO's results format, with the category ids of the data set that is
evaluated, whatever data set the detector was trained on.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from dyhead_det.contracts import Category, CategoryMap, Prediction, Target
from dyhead_det.distributed.collectives import (
    broadcast_buffers,
    broadcast_object,
    gather_objects,
)
from dyhead_det.distributed.device import images_to_device, predictions_to_host
from dyhead_det.distributed.rank_zero import main_only
from dyhead_det.distributed.world import is_main
from dyhead_det.errors import DatasetError
from dyhead_det.escaping import listed
from dyhead_det.evaluation.backends import Backend
from dyhead_det.evaluation.coco_scores import EvalResult, evaluate_detections, require_scorable
from dyhead_det.evaluation.ground_truth import CocoResult
from dyhead_det.evaluation.matching import MAX_DETECTIONS
from dyhead_det.evaluation.speed import SpeedMeter
from dyhead_det.files import written_whole


def evaluate_detector(
    detector: nn.Module,
    loader: Iterable[tuple[Sequence[Tensor], Sequence[Target]]],
    *,
    ground_truth: Mapping[str, Any],
    categories: CategoryMap,
    device: torch.device,
    backend: Backend,
    progress: bool,
    max_detections: int = MAX_DETECTIONS,
    detections_per_image: int | None = None,
    with_analysis: bool = False,
) -> tuple[EvalResult, list[CocoResult]]:
    """Run a detector over a data set and score what it finds; several processes share the images.

    Images that the loader leaves out, because they cannot be read, are not scored.

    Args:
        detector: images in, one `Prediction` per image out when in eval mode.
        loader: batches of uint8 images (3, H, W) and of targets that carry `image_id`, this
            process's share of the data set.
        ground_truth: the data set as a COCO dictionary, with its own ids.
        categories: the detector's classes; matched with the data set's by name.
        device: where the detector lies.
        backend: who computes the numbers.
        progress: show a bar where stderr is a terminal.
        max_detections: of an image and class that are counted, best first.
        detections_per_image: the most that the detector returns, if known.
        with_analysis: also find out what the 12 numbers do not tell.

    Returns:
        The numbers, and in the main process the detections they were computed from.

    Raises:
        DatasetError: where classes do not match, no image is read or nothing is annotated.
        ConfigError: where the backend is not installed.
    """
    matched = match_categories(categories, ground_truth["categories"])
    require_scorable(ground_truth, backend)
    broadcast_buffers(detector)
    meter = SpeedMeter(detector, device)
    detections_here, read_here = collect_detections(
        detector, loader, categories=matched, device=device, progress=progress, meter=meter
    )
    read_images = gather_objects(read_here)
    order = {image["id"]: position for position, image in enumerate(ground_truth["images"])}
    detections = sorted(gather_objects(detections_here), key=lambda line: order[line["image_id"]])
    result = broadcast_object(
        lambda: evaluate_detections(
            ground_truth,
            detections,
            matched,
            backend=backend,
            max_detections=max_detections,
            detections_per_image=detections_per_image,
            read_images=read_images,
            with_analysis=with_analysis,
        )
    )
    return replace(result, speed=meter.speed()), detections


def match_categories(detector: CategoryMap, dataset: Sequence[Mapping[str, Any]]) -> CategoryMap:
    """Give the detector's classes, in label order, the ids that a data set uses for them.

    Args:
        detector: the classes a detector was trained on.
        dataset: the `categories` of a COCO dictionary, in any order.

    Raises:
        DatasetError: naming the classes that only one of the two knows.
    """
    id_of_name = {str(category["name"]): int(category["id"]) for category in dataset}
    missing = [name for name in detector.names if name not in id_of_name]
    extra = [name for name in id_of_name if name not in detector.label_of_name]
    if missing or extra:
        raise DatasetError(
            "the data set's categories are not those of the detector: "
            f"missing in the data set: {listed(missing) or 'none'}; "
            f"unknown to the detector: {listed(extra) or 'none'}; "
            "rename or remove categories in the annotation file so that the names agree"
        )
    return CategoryMap(tuple(Category(name, id_of_name[name]) for name in detector.names))


def collect_detections(
    detector: nn.Module,
    loader: Iterable[tuple[Sequence[Tensor], Sequence[Target]]],
    *,
    categories: CategoryMap,
    device: torch.device,
    progress: bool,
    meter: SpeedMeter | None = None,
) -> tuple[list[CocoResult], list[int]]:
    """Run a detector over a data set; leave it in the mode (training or not) it was in.

    Args and Raises are those of `evaluate_detector`, except that `categories` carry the ids of the
    detections, and `meter` measures the batches.

    Returns:
        The detections, and the ids of the images that were read.
    """
    meter = meter or SpeedMeter(detector, device)
    detections: list[CocoResult] = []
    read_images: list[int] = []
    was_training = detector.training
    detector.eval()
    # Not inference_mode: what a detector caches in it (anchors) fails later in backward.
    with torch.no_grad():
        for images, targets in tqdm(
            meter.waits(loader),
            desc="evaluate",
            unit="batch",
            leave=False,
            disable=None if progress and is_main() else True,
        ):
            if not images:
                continue
            with meter.batch(images):
                predictions = predictions_to_host(detector(images_to_device(images, device)))
                for target, prediction in zip(targets, predictions, strict=True):
                    read_images.append(target["image_id"])
                    detections += to_coco(prediction, target["image_id"], categories)
    detector.train(was_training)
    return detections, read_images


def to_coco(prediction: Prediction, image_id: int, categories: CategoryMap) -> list[CocoResult]:
    """Write a prediction as COCO results: thousandths of a pixel, eight digits of the score."""
    xyxy = prediction["boxes"].detach().cpu().double()  # (N, 4)
    boxes_xywh = torch.cat([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], dim=1)
    scores = prediction["scores"].detach().cpu().double()
    return [
        CocoResult(
            image_id=image_id,
            category_id=categories[label].dataset_id,
            bbox=box,
            score=score,
        )
        for label, box, score in zip(
            prediction["labels"].tolist(),
            boxes_xywh.round(decimals=3).tolist(),
            scores.round(decimals=8).tolist(),
            strict=True,
        )
    ]


@main_only
def write_results(
    folder: Path,
    result: EvalResult,
    detections: Sequence[CocoResult],
    *,
    annotations: Path | None = None,
) -> None:
    """Write `metrics.json` and `detections.json` into a folder, which is made where needed."""
    write_metrics(folder, result, annotations=annotations)
    write_json(folder / "detections.json", detections, indent=None)


def write_metrics(folder: Path, result: EvalResult, *, annotations: Path | None = None) -> None:
    """Write `metrics.json` into a folder, which is made where needed.

    Args:
        folder: where to.
        result: the numbers.
        annotations: the file that they were scored against, so that `compare` finds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = None if annotations is None else str(annotations.resolve())
    write_json(folder / "metrics.json", {**result.to_plain(), "annotations": path}, indent=2)


def write_json(path: Path, value: object, *, indent: int | None) -> None:
    """Write a value as JSON, whole or not at all."""
    with written_whole(path) as unfinished:
        unfinished.write_text(json.dumps(value, indent=indent, allow_nan=False) + "\n", "utf-8")
