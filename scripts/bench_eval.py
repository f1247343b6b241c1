"""faster-coco-eval against pycocotools, and the analysis besides: seconds, ratio, equality.

    python scripts/bench_eval.py --quick
    python scripts/bench_eval.py --data mydata/val.json --data others/val.json

Both get the same detections in memory, half of them near an object; what is measured is all between
them and the numbers. A synthetic set comes first, as large as COCO's val2017 unless --quick; files
given by --data are real ground truth. The backends' time holds the search for the best bounds of
the score; the analysis is what `eval` computes for its report besides. Writes bench_eval.md and
bench_eval.png.
"""

import argparse
from collections import defaultdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.data.coco.dataset import load_coco
from dyhead_det.evaluation.analysis.analyze import analyze
from dyhead_det.evaluation.backends import Backend
from dyhead_det.evaluation.coco_scores import EvalResult, evaluate_detections
from dyhead_det.evaluation.ground_truth import CocoResult
from made_data import BOXES_PER_IMAGE
from measuring import Cost, draw_bars, machine, markdown, median_costs, option_parser, parse, report

BACKENDS: tuple[Backend, Backend] = ("pycocotools", "faster-coco-eval")

ANALYSIS = "analysis"

NUM_CLASSES = 80

Document = dict[str, Any]


def main() -> None:
    """Measure, and write table and picture."""
    parser = option_parser(__doc__)
    parser.add_argument("--data", type=Path, action="append", default=[], help="repeat as needed")
    parser.add_argument("--images", type=int, help="in the synthetic set [5000, quick 500]")
    parser.add_argument("--detections", type=int, default=100, help="per image")
    options = parse(parser)
    options.images = options.images or (500 if options.quick else 5000)
    rows, seconds = [], {}
    for name, truth in ground_truths(options).items():
        costs, results = measure(truth, options)
        seconds[name] = {backend: cost.seconds for backend, cost in costs.items()}
        rows += table_rows(name, costs, results)
    title = (
        f"# Evaluation\n\n{machine()}; {options.detections} detections per image; medians of "
        f"{options.rounds} interleaved rounds; of the 12 numbers the largest difference\n"
    )
    columns = ["", "s", "CPU s", "times faster", "by CPU", "AP", "difference"]
    report([title, *markdown(columns, rows)], options.out / "bench_eval.md")
    draw_bars(seconds, "seconds", options.out / "bench_eval.png")


def ground_truths(options: argparse.Namespace) -> dict[str, Document]:
    """Return what is to be found, by name."""
    truths = {f"synthetic, {options.images} images": synthetic_truth(options.images)}
    for path in options.data:
        truth = load_coco(path, path.parent / "images", split="val").ground_truth()
        truths[f"{path.parent.name}, {len(truth['images'])} images"] = truth
    return truths


def measure(
    truth: Document, options: argparse.Namespace
) -> tuple[dict[str, Cost], dict[Backend, EvalResult]]:
    """Let both score the same detections in turn, and analyze them."""
    categories = CategoryMap(
        tuple(Category(category["name"], category["id"]) for category in truth["categories"])
    )
    detections = detections_near(truth, options.detections)
    results: dict[Backend, EvalResult] = {}

    def evaluate(backend: Backend) -> None:
        results[backend] = evaluate_detections(truth, detections, categories, backend=backend)

    runs = {
        **{backend: partial(evaluate, backend) for backend in BACKENDS},
        ANALYSIS: lambda: analyze(truth, detections, categories),
    }
    return median_costs(runs, options.rounds), results


def table_rows(
    name: str, costs: dict[str, Cost], results: dict[Backend, EvalResult]
) -> list[list[str]]:
    """Lay out what was measured on one set."""
    reference, analysis = costs["pycocotools"], costs[ANALYSIS]
    rows = [
        [
            f"{name}: {backend} {version(backend)}",
            f"{costs[backend].seconds:.2f}",
            f"{costs[backend].cpu_seconds:.2f}",
            f"{reference.seconds / costs[backend].seconds:.1f}",
            f"{reference.cpu_seconds / costs[backend].cpu_seconds:.1f}",
            f"{results[backend].ap:.6f}",
            f"{difference(results[backend], results['pycocotools']):.1e}",
        ]
        for backend in BACKENDS
    ]
    times = [f"{analysis.seconds:.2f}", f"{analysis.cpu_seconds:.2f}"]
    return [*rows, [f"{name}: {ANALYSIS}", *times, "", "", "", ""]]


def difference(one: EvalResult, other: EvalResult) -> float:
    """Return the largest difference of the 12 numbers; not a number where only one has them."""
    differences = [
        abs((np.nan if value is None else value) - (np.nan if there is None else there))
        for value, there in zip(one.metrics.values(), other.metrics.values(), strict=True)
        if value is not None or there is not None
    ]
    return float(np.max(differences))


def synthetic_truth(num_images: int) -> Document:
    """Draw objects from 8 to 300 pixels, as many for an image as COCO has."""
    random = np.random.default_rng(0)
    count = round(BOXES_PER_IMAGE * num_images)
    columns = zip(
        random.integers(1, num_images + 1, count).tolist(),
        random.integers(1, NUM_CLASSES + 1, count).tolist(),
        random_boxes(random, count, (640, 480)).tolist(),
        strict=True,
    )
    return {
        "images": [{"id": i, "width": 640, "height": 480} for i in range(1, num_images + 1)],
        "annotations": [
            {
                "id": number,
                "image_id": image_id,
                "category_id": category_id,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for number, (image_id, category_id, box) in enumerate(columns, start=1)
        ],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(1, NUM_CLASSES + 1)],
    }


def detections_near(truth: Document, per_image: int) -> list[CocoResult]:
    """Draw detections: half of them near an object of the image and of its class, the rest not."""
    random = np.random.default_rng(1)
    objects = defaultdict(list)
    for annotation in truth["annotations"]:
        objects[annotation["image_id"]].append((*annotation["bbox"], annotation["category_id"]))
    classes = np.array([category["id"] for category in truth["categories"]])
    detections: list[CocoResult] = []
    for image in truth["images"]:
        boxes = random_boxes(random, per_image, (image["width"], image["height"]))
        labels = random.choice(classes, per_image)
        scores = 0.6 * random.random(per_image)
        if objects[image["id"]]:
            near = random.choice(np.array(objects[image["id"]]), per_image // 2)  # (N/2, 5)
            shifts = random.normal(0, 0.1, (len(near), 4)) * np.tile(near[:, 2:4], 2)
            boxes[: len(near)] = near[:, :4] + shifts
            labels[: len(near)] = near[:, 4]
            scores[: len(near)] /= 0.6
        boxes[:, 2:] = boxes[:, 2:].clip(min=1)
        detections += [
            CocoResult(image_id=image["id"], category_id=label, bbox=box, score=score)
            for label, box, score in zip(
                labels.tolist(), boxes.tolist(), scores.tolist(), strict=True
            )
        ]
    return detections


def random_boxes(random: np.random.Generator, count: int, size_wh: tuple[int, int]) -> np.ndarray:
    """Return boxes (count, 4) as x, y, width, height that begin inside an image of that size."""
    sizes = np.exp(random.uniform(np.log(8), np.log(300), (count, 2)))
    return np.concatenate([random.uniform(0, 0.8, (count, 2)) * size_wh, sizes], axis=1)


if __name__ == "__main__":
    main()
