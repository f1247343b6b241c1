"""A data set as COCO files: one a part, boxes to the last digit."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dyhead_det.contracts import CategoryMap
from dyhead_det.data.formats.output import Output, OutputImage


def write_coco(output: Output, folder: Path) -> None:
    """Write `train.json` and so on, whose images lie in `images/train` and so on."""
    for part, images in output.parts.items():
        document = _document(images, output.categories)
        (folder / f"{part}.json").write_text(json.dumps(document), encoding="utf-8")


def _document(images: Sequence[OutputImage], categories: CategoryMap) -> dict[str, Any]:
    ids = [int(image.dataset.image_ids[image.index]) for image in images]
    if len(set(ids)) < len(ids):  # of several data sets
        ids = list(range(1, len(images) + 1))
    annotations: list[dict[str, Any]] = []
    for number, image in zip(ids, images, strict=True):
        for thing in image.objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": categories[thing.label].dataset_id,
                    "bbox": thing.box_xywh,
                    "area": thing.area,
                    "iscrowd": int(thing.is_crowd),
                }
            )
    return {
        "info": {},
        "licenses": [],
        "images": [
            {"id": number, "file_name": image.name}
            | dict(zip(("width", "height"), image.size_wh, strict=True))
            for number, image in zip(ids, images, strict=True)
        ],
        "annotations": annotations,
        "categories": [
            {"id": category.dataset_id, "name": category.name} for category in categories
        ],
    }
