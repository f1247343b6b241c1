"""Score a COCO results file of any detector against a COCO annotation file.

Both are read as they are: no box is clipped or dropped, so that the numbers are pycocotools' own.
What could not be scored, or would be scored wrongly without a word, is refused.
"""

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.errors import DatasetError
from dyhead_det.escaping import listed, printable
from dyhead_det.evaluation.backends import Backend
from dyhead_det.evaluation.coco_scores import EvalResult, evaluate_detections
from dyhead_det.evaluation.ground_truth import CocoResult
from dyhead_det.evaluation.matching import MAX_DETECTIONS
from dyhead_det.files import open_file

# In pixels; beyond it, areas are no finite numbers any more.
_LARGEST = 1e9
_NO_BOX = "bbox is not [x, y, width, height] in pixels"

Entry = dict[str, Any]
Ids = dict[int | float | str, int]

_OTHER_FORMATS = (".yaml", ".yml", ".xml", ".txt")
_CONVERT = "YOLO and Pascal VOC become COCO by `dyhead-det data convert FOLDER --to coco --out NEW`"


class ScoredData(NamedTuple):
    """Annotations and detections of the same images, which are numbered in the order of their ids.

    ground_truth: a COCO dictionary; its images also have `original_id` and `file_name`, which may
        be None.
    categories: in the order of their ids.
    """

    ground_truth: Entry
    detections: list[CocoResult]
    categories: CategoryMap


def evaluate_results(
    detections: Path,
    annotations: Path,
    *,
    backend: Backend,
    max_detections: int = MAX_DETECTIONS,
    with_analysis: bool = False,
) -> EvalResult:
    """Score the detections of a file as COCO does.

    Args:
        detections: COCO results, a list of {image_id, category_id, bbox, score}.
        annotations: COCO annotations; ids may be numbers or text.
        backend: who computes the numbers.
        max_detections: of an image and class that are counted, best first.
        with_analysis: also find out what the 12 numbers do not tell.

    Raises:
        DatasetError: where one of the files cannot be used, or they do not belong together.
        ConfigError: where the backend is not installed.
    """
    data = load_results(detections, annotations)
    return evaluate_detections(
        data.ground_truth,
        data.detections,
        data.categories,
        backend=backend,
        max_detections=max_detections,
        with_analysis=with_analysis,
    )


def load_results(detections: Path, annotations: Path) -> ScoredData:
    """Read a results file with the annotations that it is scored against; as `evaluate_results`."""
    ground_truth, image_ids, category_ids = _load_ground_truth(annotations)
    return ScoredData(
        ground_truth,
        _load_results(detections, image_ids, category_ids, annotations),
        CategoryMap(
            tuple(
                Category(category["name"], category["id"])
                for category in ground_truth["categories"]
            )
        ),
    )


def _load_ground_truth(path: Path) -> tuple[Entry, Ids, Ids]:
    """Read annotations; images and categories are numbered in the order of their ids."""
    document = read_json(path)
    sections = ("images", "annotations", "categories")
    if not isinstance(document, dict) or not all(
        isinstance(document.get(name), list) for name in sections
    ):
        raise DatasetError(
            f"{path} is no COCO annotation file: it needs the lists {', '.join(sections)}"
        )
    images, annotations, categories = (document[name] for name in sections)
    _require(path, "images", images, {"id is neither a whole number nor text": _has_id})
    _require(path, "categories", categories, {"id is neither a whole number nor text": _has_id})
    image_ids = _numbered(image["id"] for image in images)
    category_ids = _numbered(category["id"] for category in categories)
    _require(
        path,
        "annotations",
        annotations,
        {
            "image_id is not that of a listed image": _refers_to("image_id", image_ids),
            "category_id is not that of a listed category": _refers_to("category_id", category_ids),
            _NO_BOX: _has_box,
            "area is no number": lambda entry: _is_number(entry.get("area", 0)),
            "iscrowd is neither 0 nor 1": lambda entry: entry.get("iscrowd", 0) in (0, 1),
        },
    )
    names = {category_ids[category["id"]]: category.get("name") for category in categories}
    ground_truth = {
        "images": [
            {
                "id": image_ids[image["id"]],
                "original_id": image["id"],
                "file_name": image.get("file_name"),
            }
            for image in sorted(images, key=lambda image: image_ids[image["id"]])
        ],
        "categories": [
            {"id": number, "name": name if isinstance(name, str) else f"category {number}"}
            for number, name in sorted(names.items())
        ],
        "annotations": [
            {
                "image_id": image_ids[entry["image_id"]],
                "category_id": category_ids[entry["category_id"]],
                "bbox": entry["bbox"],
                "area": entry.get("area", entry["bbox"][2] * entry["bbox"][3]),
                "iscrowd": int(entry.get("iscrowd", 0)),
            }
            for entry in annotations
        ],
    }
    return ground_truth, image_ids, category_ids


def _load_results(
    path: Path, image_ids: Ids, category_ids: Ids, annotations: Path
) -> list[CocoResult]:
    """Read detections, with the numbers of images and categories in place of their ids."""
    entries = read_json(path)
    if not isinstance(entries, list):
        raise DatasetError(
            f"{path} is no COCO results file: it is a list of detections, each with image_id, "
            f"category_id, bbox and score; this holds a JSON {type(entries).__name__}"
        )
    _require(
        path,
        "detections",
        entries,
        {
            f"image_id is not that of an image in {annotations}": _refers_to("image_id", image_ids),
            f"category_id is not that of a category in {annotations}": _refers_to(
                "category_id", category_ids
            ),
            _NO_BOX: _has_box,
            "score is no number": lambda entry: _is_number(entry.get("score")),
        },
    )
    # These four alone: an `area` of theirs is not that of the box.
    return [
        CocoResult(
            image_id=image_ids[entry["image_id"]],
            category_id=category_ids[entry["category_id"]],
            bbox=entry["bbox"],
            score=entry["score"],
        )
        for entry in entries
    ]


def read_json(path: Path) -> Any:  # noqa: ANN401 - JSON of any kind
    """Read a file of JSON.

    Raises:
        DatasetError: If it cannot be read, or is none.
    """
    try:
        with open_file(path) as file:
            return json.loads(file.read())
    except OSError as error:
        advice = f"; {_CONVERT}" if isinstance(error, IsADirectoryError) else ""
        raise DatasetError(f"{path} cannot be read: {error.strerror}{advice}") from error
    except (ValueError, RecursionError) as error:
        advice = f"; {_CONVERT}" if path.suffix.lower() in _OTHER_FORMATS else ""
        raise DatasetError(f"{path} is not valid JSON: {printable(error)}{advice}") from error


def _require(
    path: Path, what: str, entries: Sequence[Any], rules: dict[str, Callable[[Entry], bool]]
) -> None:
    """Make sure that all entries are objects that meet all rules; name those that do not.

    Args:
        path: the file, for the error.
        what: what the entries are.
        entries: of a list in the file.
        rules: what is wrong with an entry for which the function is false; later ones are asked
            only where the earlier ones are met.
    """
    problems: dict[str, list[int]] = {}
    rules = {"no JSON object": lambda entry: isinstance(entry, dict), **rules}
    for position, entry in enumerate(entries):
        for problem, is_met in rules.items():
            if not is_met(entry):
                problems.setdefault(problem, []).append(position)
                break
    if problems:
        counted = "; ".join(
            f"{problem} ({len(positions)} of {len(entries)} {what}, from 0: {listed(positions)})"
            for problem, positions in problems.items()
        )
        raise DatasetError(f"{path} cannot be scored: {counted}; correct the file")


def _numbered(ids: Iterable[int | float | str]) -> Ids:
    """Number ids from 1 in their order, numbers before text."""
    known = sorted(set(ids), key=lambda value: (isinstance(value, str), value))
    return {value: number for number, value in enumerate(known, start=1)}


def _has_id(entry: Entry) -> bool:
    return _is_id(entry.get("id"))


def _refers_to(key: str, known: Collection[object]) -> Callable[[Entry], bool]:
    return lambda entry: _is_id(entry.get(key)) and entry[key] in known


def _has_box(entry: Entry) -> bool:
    box = entry.get("bbox")
    return (
        isinstance(box, list)
        and len(box) == 4
        and all(map(_is_number, box))
        and box[2] >= 0
        and box[3] >= 0
    )


def _is_id(value: object) -> bool:
    """Return whether a value can be an id; 7.0 is the same as 7, as in pycocotools."""
    is_whole = isinstance(value, float) and value.is_integer()
    return is_whole or (isinstance(value, int | str) and not isinstance(value, bool))


def _is_number(value: object) -> bool:
    """Return whether a value is a number of a size that can be computed with, and not NaN."""
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and -_LARGEST <= value <= _LARGEST  # type: ignore[operator]  # checked before
