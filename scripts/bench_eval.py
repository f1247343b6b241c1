"""faster-coco-eval against pycocotools on a synthetic set: seconds, ratio, equality.

    python scripts/bench_eval.py --images 500 --rounds 5

Runs alternate between the two, so that a busy machine slows both; medians are compared.
"""

import argparse
import os
import platform
import statistics
import time
from importlib.metadata import version
from typing import Any

import numpy as np

from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.engine.coco_scores import Backend, CocoResult, EvalResult, evaluate_detections

BACKENDS: tuple[Backend, Backend] = ("pycocotools", "faster-coco-eval")


def main() -> None:
    """Measure and print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--objects", type=int, default=7, help="per image")
    parser.add_argument("--detections", type=int, default=100, help="per image")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    ground_truth, detections, categories = synthetic_set(options)
    seconds: dict[Backend, list[float]] = {backend: [] for backend in BACKENDS}
    results: dict[Backend, EvalResult] = {}
    for _ in range(options.rounds):
        for backend in BACKENDS:
            started_at = time.perf_counter()
            results[backend] = evaluate_detections(
                ground_truth, detections, categories, backend=backend
            )
            seconds[backend].append(time.perf_counter() - started_at)
    report(options, seconds, results)


def report(
    options: argparse.Namespace,
    seconds: dict[Backend, list[float]],
    results: dict[Backend, EvalResult],
) -> None:
    """Print medians, their ratio and the largest difference of the 12 numbers."""
    print(
        f"{options.images} images, {options.classes} classes, {options.objects} objects and "
        f"{options.detections} detections each; {options.rounds} rounds; "
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs"
    )
    print("\n| backend | version | median s | AP |\n|---|---|---|---|")
    for backend in BACKENDS:
        median = statistics.median(seconds[backend])
        print(f"| {backend} | {version(backend)} | {median:.3f} | {results[backend].ap:.6f} |")
    reference, fast = (statistics.median(seconds[backend]) for backend in BACKENDS)
    differences = [
        abs(value - other)
        for value, other in zip(*(results[b].metrics.values() for b in BACKENDS), strict=True)
        if value is not None and other is not None
    ]
    print(f"\nratio {reference / fast:.1f}; largest difference {max(differences):.1e}")


def synthetic_set(
    options: argparse.Namespace,
) -> tuple[dict[str, Any], list[CocoResult], CategoryMap]:
    """Draw objects from 8 to 300 pixels; half the detections are near one, the rest anywhere."""
    random = np.random.default_rng(0)
    images = [{"id": i, "width": 640, "height": 480} for i in range(1, options.images + 1)]
    annotations: list[dict[str, Any]] = []
    detections: list[CocoResult] = []
    for image in images:
        truth = _random_boxes(random, options.objects)  # (objects, 4)
        classes = random.integers(1, options.classes + 1, options.objects)
        for box, label in zip(truth.tolist(), classes.tolist(), strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": label,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
        near = random.integers(0, options.objects, options.detections)
        moved = truth[near] + random.normal(0, 0.1, (options.detections, 4)) * np.tile(
            truth[near, 2:], 2
        )
        is_near = random.random(options.detections) < 0.5
        guesses = np.where(is_near[:, None], moved, _random_boxes(random, options.detections))
        guesses[:, 2:] = np.maximum(guesses[:, 2:], 1)
        labels = np.where(
            is_near, classes[near], random.integers(1, options.classes + 1, options.detections)
        )
        scores = random.random(options.detections) * np.where(is_near, 1.0, 0.6)
        detections += [
            CocoResult(image_id=image["id"], category_id=label, bbox=box, score=score)
            for label, box, score in zip(
                labels.tolist(), guesses.tolist(), scores.tolist(), strict=True
            )
        ]
    categories = CategoryMap(tuple(Category(f"{i}", i) for i in range(1, options.classes + 1)))
    plain = [{"id": category.dataset_id, "name": category.name} for category in categories]
    ground_truth = {"images": images, "categories": plain, "annotations": annotations}
    return ground_truth, detections, categories


def _random_boxes(random: np.random.Generator, count: int) -> np.ndarray:
    """Return boxes (count, 4) as x, y, width, height."""
    sizes = np.exp(random.uniform(np.log(8), np.log(300), (count, 2)))
    return np.concatenate([random.uniform(0, 400, (count, 2)), sizes], axis=1)


if __name__ == "__main__":
    main()
