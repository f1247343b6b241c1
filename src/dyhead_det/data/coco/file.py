"""COCO records: the three sections of a file, each a list of JSON objects."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dyhead_det.data.coco.problems import AnnotationProblems
from dyhead_det.data.coco.records import Record
from dyhead_det.errors import DatasetError
from dyhead_det.files import open_file

# A class, then a box or a polygon; the beginning is enough.
_YOLO_LABEL = re.compile(rb"\s*\d+([ \t]+[\d.eE+-]+){4,}")
_VOC_BEGINNING = re.compile(rb"(\xef\xbb\xbf)?\s*(<\?xml|<annotation)")
_SECTIONS = ("images", "annotations", "categories")


@dataclass(frozen=True)
class CocoRecords:
    """The records of a data set, of which nothing is known but that they are JSON objects.

    titles: what messages call the annotations, such as file and line; None for their ids.
    """

    images: list[Record]
    annotations: list[Record]
    categories: list[Record]
    titles: list[str] | None = None


def read_records(annotations: Path, problems: AnnotationProblems, *, split: str) -> CocoRecords:
    """Read a COCO annotation file.

    Args:
        annotations: the JSON file.
        problems: gets the entries that are no objects.
        split: ``train`` or ``val``, for the configuration key in messages.

    Raises:
        DatasetError: if the file cannot be read or is no COCO annotation file.
    """
    key = f"data.{split}.annotations"
    document = _read_json(annotations, key)
    if not isinstance(document, dict):
        raise DatasetError(
            f"{annotations} holds a JSON {type(document).__name__}; a COCO annotation file is an "
            f"object with images, annotations and categories (detections are a list); check {key}"
        )
    missing = [
        f"{section} is {'missing' if section not in document else 'not a list'}"
        for section in _SECTIONS
        if not isinstance(document.get(section), list)
    ]
    if missing:
        raise DatasetError(
            f"{annotations} is not a COCO annotation file: {', '.join(missing)}; check {key}"
        )
    for section in ("images", "categories"):
        if not document[section]:
            problems.refuse("the list is empty", [section])
    sections = {name: _objects(document[name], name, problems) for name in _SECTIONS}
    return CocoRecords(sections["images"], sections["annotations"], sections["categories"])


def _read_json(path: Path, key: str) -> object:
    content = b""
    try:
        with open_file(path) as file:
            content = file.read()
        return json.loads(content)
    except FileNotFoundError as error:
        raise DatasetError(f"no annotation file at {path}; check {key}") from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}; check {key}") from error
    except MemoryError as error:
        raise DatasetError(f"{path} does not fit into memory; check {key}") from error
    except (ValueError, RecursionError) as error:
        advice = _advice_on_other_format(content)
        msg = f"{path} is not valid JSON: {error}; {advice}check {key}"
        raise DatasetError(msg) from error


def _advice_on_other_format(content: bytes) -> str:
    """Return what to do where the content is that of another format, else nothing."""
    for name, what, looks_so in (
        ("a label file of YOLO", "the folder of its data.yaml", _YOLO_LABEL.match(content)),
        ("an XML file of Pascal VOC", "their folder", _VOC_BEGINNING.match(content)),
    ):
        if looks_so:
            return f"it looks like {name}, give {what} (dyhead-det data check FOLDER); "
    return ""


def _objects(records: list[Any], section: str, problems: AnnotationProblems) -> list[Record]:
    objects = [record for record in records if isinstance(record, dict)]
    if len(objects) < len(records):
        positions = (row for row, record in enumerate(records) if not isinstance(record, dict))
        problems.refuse(f"entries of {section} that are not objects, positions", positions)
    return objects
