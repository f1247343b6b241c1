"""`data check --fix`: a repaired copy of a COCO file, and the list of all that is changed in it.

What reading repairs in memory is written down; what it refuses is left out or, where the numbers
say what is meant, corrected: boxes as fractions or as corners. Everything else stays as it is,
keys that nobody here knows included.
"""

import itertools
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dyhead_det.data.coco import records as read
from dyhead_det.data.coco.box_frames import CORNERS, RELATIVE
from dyhead_det.data.coco.dataset import CocoDataset, build_dataset
from dyhead_det.data.coco.file import CocoRecords, read_records
from dyhead_det.data.coco.identifiers import Identifiers
from dyhead_det.data.coco.problems import AnnotationProblems, summary
from dyhead_det.data.coco.records import Record
from dyhead_det.data.formats.source import Source, find_source
from dyhead_det.data.stores.store import ImageLocation
from dyhead_det.errors import ConfigError, DatasetError
from dyhead_det.files import require_new, require_writable, written_whole
from dyhead_det.inspection.box_forms import as_xywh_pixels
from dyhead_det.inspection.check import Check, DatasetCheck, check_dataset, check_together
from dyhead_det.inspection.targets import Target
from dyhead_det.tables import write_csv

DROPPED = "(dropped)"
# Kinds of which nobody but a person knows what is meant.
_AMBIGUOUS = (
    "image ids used for different images",
    "images without an id",
    "category ids with two names",
    "category names with two ids",
    "categories without an id or a name",
)


_SECTIONS = ("images", "annotations", "categories")


class Change(NamedTuple):
    """A value that differs in the copy; section and position: of the record in the original."""

    section: str
    position: int
    id: object
    key: str
    before: object
    after: object


@dataclass(frozen=True)
class RepairedFile:
    """A COCO file as it should be; changes: from the original, in its order."""

    document: dict[str, Any]
    changes: tuple[Change, ...]

    def summary(self) -> str:
        """Return in one line how many records are left out, and how many values changed."""
        dropped = Counter(change.section for change in self.changes if change.key == DROPPED)
        changed = Counter(
            f"{change.section}.{change.key}" for change in self.changes if change.key != DROPPED
        )
        parts = [
            f"{title}: {', '.join(f'{number} {what}' for what, number in numbers.items())}"
            for title, numbers in (("left out", dropped), ("changed", changed))
            if numbers
        ]
        return "; ".join(parts) or "nothing to change"

    def write(self, path: Path) -> None:
        """Write the file, and the changes as a table beside it."""
        rows = ([*change[:2], *map(_text, change[2:])] for change in self.changes)
        write_csv(changes_path(path), Change._fields, rows)
        with written_whole(path) as unfinished:
            unfinished.write_text(json.dumps(self.document), encoding="utf-8")


def require_repairable(target: Target, copy: Path, *, overwrite: bool) -> None:
    """Make sure that a target is one COCO file and that a copy of it can be written.

    Raises:
        ConfigError: if not.
    """
    sources = [find_source(part.source, part=part.split) for part in target.parts]
    if len(sources) != 1 or sources[0].format != "coco":
        what = f"{len(sources)} parts, {', '.join(found.format for found in sources)}"
        raise ConfigError(
            f"--fix repairs one COCO file, this is {what}; name the file, or make COCO files of "
            "other formats by `data convert --to coco`"
        )
    original = sources[0].annotations
    if copy.exists() and original.exists() and copy.samefile(original):
        raise ConfigError(f"{copy} is the original, which is not touched; give --fix another name")
    for path in (copy, changes_path(copy)):
        require_new(path, overwrite=overwrite)
    require_writable(copy.parent, copy.name, option="--fix")


def write_repaired(
    checked: DatasetCheck, copy: Path, *, opens_images: bool = True
) -> tuple[RepairedFile, Check]:
    """Write a repaired copy of what was checked, and check that."""
    images = checked.dataset.images.location
    repaired = repair_file(checked.dataset.annotations_path, images, checked.unreadable)
    repaired.write(copy)
    again = check_dataset(Source(copy, images), opens_images=opens_images)
    return repaired, check_together([again])


def changes_path(copy: Path) -> Path:
    """Return where the list of changes lies, beside the copy."""
    return copy.with_suffix(".changes.csv")


def repair_file(
    annotations: Path, images: ImageLocation, unreadable: frozenset[str] = frozenset()
) -> RepairedFile:
    """Repair a COCO file in memory.

    Args:
        annotations: the file, which is not touched.
        images: where its images lie.
        unreadable: names of image files to leave out, with their annotations.

    Raises:
        DatasetError: if it is no COCO file, or holds what a person must decide.
    """
    problems = AnnotationProblems(annotations)
    build_dataset(
        read_records(annotations, problems, split="train"), images, problems, split="train"
    )
    ambiguous = {k: ids for k, ids in problems.refused.items() if k.startswith(_AMBIGUOUS)}
    if ambiguous:
        raise DatasetError(
            f"{annotations} cannot be repaired by a program: {'; '.join(summary(ambiguous))}; "
            "correct these by hand"
        )
    document = json.loads(annotations.read_bytes())
    sections = [_objects(document[section]) for section in _SECTIONS]
    records = CocoRecords(sections[0], sections[1], sections[2])
    frame = next(
        (f for f in (RELATIVE, CORNERS) for k in problems.refused if k.startswith(f)), None
    )
    written = as_xywh_pixels(records, images, frame) if frame else records.annotations
    numbered = [{**record, "id": row + 1} for row, record in enumerate(written)]
    dataset = build_dataset(
        CocoRecords(records.images, numbered, records.categories),
        images,
        AnnotationProblems(annotations),
        split="train",
    )
    kept = (
        _images(records.images, dataset, unreadable),
        _annotations(records.annotations, dataset, unreadable),
        _categories(records.categories, dataset),
    )
    new = dict(zip(_SECTIONS, kept, strict=True))
    if not kept[0]:
        raise DatasetError(f"{annotations}: no image would be left in a repaired copy")
    changes = tuple(
        change
        for section, by_row in new.items()
        for change in _changes(section, document[section], by_row)
    )
    return RepairedFile(
        {**document, **{s: [*by_row.values()] for s, by_row in new.items()}}, changes
    )


def _objects(section: list[object]) -> list[Record]:
    return [record for record in section if isinstance(record, dict)]


def _images(
    records: list[Record], dataset: CocoDataset, unreadable: frozenset[str]
) -> dict[int, Record]:
    """Return the images to keep by their row: the first of each id that has a file and a size."""
    numbers = Identifiers.of([record.get("id") for record in records]).numbers.tolist()
    index_of_number = {number: index for index, number in enumerate(dataset.image_ids.tolist())}
    kept: dict[int, Record] = {}
    for row, (number, record) in enumerate(zip(numbers, records, strict=True)):
        index = index_of_number.pop(number, None)  # each once
        if index is None or not _is_usable(dataset, index, unreadable):
            continue
        width, height = dataset.size_wh(index)
        right = {"id": number, "file_name": dataset.file_names[index]}
        kept[row] = _with(record, {**right, "width": width, "height": height})
    return kept


def _is_usable(dataset: CocoDataset, index: int, unreadable: frozenset[str]) -> bool:
    name = dataset.file_names[index]
    return bool(name) and name not in unreadable and min(dataset.size_wh(index)) > 0


def _annotations(
    records: list[Record], dataset: CocoDataset, unreadable: frozenset[str]
) -> dict[int, Record]:
    """Return the annotations to keep by their row, which is their id in the data set less one."""
    image_of_row = dataset.image_indices.tolist()
    is_usable = [_is_usable(dataset, index, unreadable) for index in range(len(dataset))]
    ids = _FreeIds(records)
    kept = {}
    for place in np.argsort(dataset.annotation_ids).tolist():
        if not is_usable[image_of_row[place]]:
            continue
        row = int(dataset.annotation_ids[place]) - 1
        right = {
            "id": ids.take(row),
            "image_id": int(dataset.image_ids[image_of_row[place]]),
            "category_id": dataset.categories[int(dataset.labels[place])].dataset_id,
            "bbox": [_short(value) for value in dataset.boxes_xywh[place].tolist()],
            "area": _short(float(dataset.areas[place])),
            "iscrowd": int(dataset.is_crowd[place]),
        }
        kept[row] = _with(records[row], right)
    return kept


class _FreeIds:
    """Gives every annotation that is kept its own id, or one above all where that is unusable."""

    def __init__(self, records: list[Record]) -> None:
        self._ids, self._has_id = read.integers([record.get("id") for record in records])
        self._taken: set[int] = set()
        self._above = itertools.count(1 + max(0, int(self._ids.max(initial=0))))

    def take(self, row: int) -> int:
        own = int(self._ids[row])
        is_usable = self._has_id[row] and own >= 1 and own not in self._taken
        number = own if is_usable else next(self._above)
        self._taken.add(number)
        return number


def _categories(records: list[Record], dataset: CocoDataset) -> dict[int, Record]:
    """Return the categories to keep by their row, each once."""
    numbers = Identifiers.of([record.get("id") for record in records]).numbers.tolist()
    wanted = dict.fromkeys(category.dataset_id for category in dataset.categories)
    name_of_id = {category.dataset_id: category.name for category in dataset.categories}
    kept: dict[int, Record] = {}
    for row, (number, record) in enumerate(zip(numbers, records, strict=True)):
        if number in wanted and record.get("name") == name_of_id[number]:
            del wanted[number]
            kept[row] = _with(record, {"id": number})
    return kept


def _with(record: Record, right: Mapping[str, object]) -> Record:
    """Return a record with the right values in place of those that differ from them."""
    wrong = {
        key: value
        for key, value in right.items()
        # True is 1 and "7" is none; 10 and 10.0 are the same.
        if record.get(key) != value or isinstance(record[key], bool)
    }
    return {**record, **wrong}


def _changes(section: str, original: list[object], kept: dict[int, Record]) -> list[Change]:
    """Compare the original records of a section with those that are kept, by row."""
    changes = []
    row = -1
    for position, before in enumerate(original):
        if not isinstance(before, dict):  # these are no rows
            changes.append(Change(section, position, None, DROPPED, before, None))
            continue
        row += 1
        after = kept.get(row)
        if after is None:
            changes.append(Change(section, position, before.get("id"), DROPPED, before, None))
            continue
        changes += [
            Change(section, position, before.get("id"), key, before.get(key), value)
            for key, value in after.items()
            if key not in before or before[key] is not value
        ]
    return changes


def _short(value: float) -> float | int:
    return int(value) if value.is_integer() else value


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
