"""faster-coco-eval against pycocotools on a synthetic set: seconds, ratio, equality.

    python scripts/bench_eval.py --images 5000 --rounds 3

Both get the same detections in memory; what is measured is all between them and the numbers.
"""

import argparse
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.engine.coco_scores import Backend, CocoResult, EvalResult, evaluate_detections
from measuring import machine, markdown, median_costs, report

BACKENDS: tuple[Backend, Backend] = ("pycocotools", "faster-coco-eval")


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--objects", type=int, default=7, help="per image")
    parser.add_argument("--detections", type=int, default=100, help="per image")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("bench"))
    options = parser.parse_args()
    truth_and_detections = synthetic_set(options)
    results: dict[Backend, EvalResult] = {}

    def evaluate(backend: Backend) -> None:
        results[backend] = evaluate_detections(*truth_and_detections, backend=backend)

    costs = median_costs(
        {backend: partial(evaluate, backend) for backend in BACKENDS}, options.rounds
    )
    reference = costs["pycocotools"]
    rows = [
        [
            f"{backend} {version(backend)}",
            f"{cost.seconds:.2f}",
            f"{cost.cpu_seconds:.2f}",
            f"{reference.seconds / cost.seconds:.1f}",
            f"{reference.cpu_seconds / cost.cpu_seconds:.1f}",
            f"{results[backend].ap:.6f}",
        ]
        for backend, cost in costs.items()
    ]
    title = (
        f"# Evaluation\n\n{machine()}; {options.images} images, {options.classes} classes, "
        f"{options.objects} objects and {options.detections} detections each; medians of "
        f"{options.rounds} interleaved rounds\n"
    )
    table = markdown(["", "s", "CPU s", "times faster", "by CPU", "AP"], rows)
    difference = f"\nLargest difference of the 12 numbers: {largest_difference(results):.1e}"
    report([title, *table, difference], options.out / "bench_eval.md")


def largest_difference(results: dict[Backend, EvalResult]) -> float:
    """Compare the 12 numbers."""
    return max(
        abs(value - other)
        for value, other in zip(
            *(results[backend].metrics.values() for backend in BACKENDS), strict=True
        )
        if value is not None and other is not None
    )


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
