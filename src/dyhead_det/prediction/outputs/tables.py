"""Results that other programs read, made from the journal line by line: COCO's JSON, CSV."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from dyhead_det.contracts import CategoryMap
from dyhead_det.files import written_whole
from dyhead_det.prediction.outputs.lines import Line
from dyhead_det.tables import write_csv

DETECTIONS, IMAGES, TABLE = "detections.json", "images.json", "detections.csv"
_COLUMNS = ("file_name", "image_id", "category", "category_id", "score")
_BOX_COLUMNS = ("x", "y", "width", "height")


def write_detections(path: Path, lines: Iterable[Line]) -> None:
    """Write COCO results: a list of all detections, with names of images and classes besides."""
    _write_list(path, "[", map(_dumped, _detections(lines)), "]\n")


def write_images(path: Path, lines: Iterable[Line], categories: CategoryMap) -> None:
    """Write a COCO file without annotations: every image that was read, and the classes.

    `COCO(images.json).loadRes(detections.json)` of pycocotools takes the two together.
    """
    classes = [{"id": each.dataset_id, "name": each.name} for each in categories]
    images = (
        _dumped(
            {
                "id": line["image_id"],
                **{key: line[key] for key in ("file_name", "width", "height")},
            }
        )
        for line in lines
        if "detections" in line
    )
    _write_list(
        path,
        f'{{"info": {{}}, "categories": {_dumped(classes)}, "annotations": [], "images": [',
        images,
        "]}\n",
    )


def write_detections_csv(path: Path, lines: Iterable[Line]) -> None:
    """Write a table with one row per detection."""
    rows = ((*(each[name] for name in _COLUMNS), *each["bbox"]) for each in _detections(lines))
    write_csv(path, (*_COLUMNS, *_BOX_COLUMNS), rows)


def _detections(lines: Iterable[Line]) -> Iterator[Line]:
    for line in lines:
        for detection in line.get("detections", ()):
            yield {"image_id": line["image_id"], **detection, "file_name": line["file_name"]}


def _write_list(path: Path, start: str, items: Iterable[str], end: str) -> None:
    """Write a JSON list an item a line, so that it never lies in memory as a whole."""
    with written_whole(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        file.write(start)
        for i, item in enumerate(items):
            file.write(f"{',' if i else ''}\n{item}")
        file.write(end)


def _dumped(value: object) -> str:
    return json.dumps(value, allow_nan=False)
