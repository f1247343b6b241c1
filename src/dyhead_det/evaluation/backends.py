"""Who computes COCO's numbers.

pycocotools is the reference; faster-coco-eval gives the same numbers several times faster. Both are
imported only here, and only when something is scored.
"""

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from dyhead_det.errors import ConfigError
from dyhead_det.evaluation.ground_truth import CocoResult

Backend = Literal["auto", "pycocotools", "faster-coco-eval"]


def build_evaluation(
    ground_truth: Mapping[str, Any], detections: Sequence[CocoResult], backend: Backend
) -> tuple[str, Any]:
    """Return the name of who evaluates, and its `COCOeval` before anything is matched."""
    name, new_table, new_evaluation = import_backend(backend)
    # Both libraries talk to stdout, which belongs to the program's own results.
    with contextlib.redirect_stdout(io.StringIO()):
        tables = [new_table(), new_table()]
        for table, annotations in zip(
            tables, (ground_truth["annotations"], detections), strict=True
        ):
            # Built here because `COCO.loadRes` fails on no detections.
            table.dataset = {
                "images": [{"id": image["id"]} for image in ground_truth["images"]],
                "categories": [{"id": category["id"]} for category in ground_truth["categories"]],
                "annotations": _numbered(annotations),
            }
            table.createIndex()
        return name, new_evaluation(*tables, iouType="bbox")


def _numbered(annotations: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Copy what the evaluators read; they write into the records they are given.

    Numbers start at 1 because pycocotools takes a match with annotation 0 for none.
    """
    return [
        {
            "id": number,
            "image_id": annotation["image_id"],
            "category_id": annotation["category_id"],
            "bbox": annotation["bbox"],
            "area": annotation.get("area", annotation["bbox"][2] * annotation["bbox"][3]),
            "iscrowd": annotation.get("iscrowd", 0),
            "score": annotation.get("score", 0.0),
        }
        for number, annotation in enumerate(annotations, start=1)
    ]


def import_backend(backend: Backend) -> tuple[str, Callable[[], Any], Callable[..., Any]]:
    """Return a backend's name, its table of annotations and its evaluation."""
    if backend != "pycocotools":
        try:
            from faster_coco_eval import COCO, COCOeval_faster  # noqa: PLC0415 - only when scoring
        except ImportError as error:
            if backend == "faster-coco-eval":
                raise ConfigError(
                    f"eval.backend: faster-coco-eval cannot be imported ({error}); "
                    "`pip install faster-coco-eval`, or use auto or pycocotools"
                ) from error
        else:
            return "faster-coco-eval", COCO, COCOeval_faster
    from pycocotools.coco import COCO  # noqa: PLC0415 - only when scoring
    from pycocotools.cocoeval import COCOeval  # noqa: PLC0415 - only when scoring

    return "pycocotools", COCO, COCOeval
