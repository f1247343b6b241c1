"""The categories of a COCO file, and which of them each annotation has."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.data.coco.identifiers import Identifiers
from dyhead_det.data.coco.problems import AnnotationProblems
from dyhead_det.data.coco.records import Flags, Integers, Record


@dataclass(frozen=True)
class CategoryColumns:
    """The classes, and the class of each of M annotations.

    categories: in the order of their ids; labels: (M,) 0..K-1, -1 where the category is unknown;
    is_complete: every record could be read, so that an unknown category is no consequence.
    """

    categories: CategoryMap
    labels: Integers
    is_complete: bool


def read_categories(
    records: Sequence[Record], category_ids: Sequence[object], problems: AnnotationProblems
) -> CategoryColumns:
    """Read the categories in the order of their ids.

    Args:
        records: the section of the file.
        category_ids: (M,) `category_id` of every annotation, as it is written.
        problems: gets what was repaired and what is refused.
    """
    identifiers = Identifiers.of([record.get("id") for record in records])
    names = [_name(record) for record in records]
    is_usable = identifiers.is_known & np.array([name is not None for name in names], dtype=bool)
    problems.refuse(
        "categories without an id or a name (half a surrogate pair is none), positions",
        np.flatnonzero(~is_usable),
    )
    problems.repair("category ids that are text, numbered from 1", identifiers.texts())

    rows = identifiers.rows_of(category_ids)
    is_used = np.zeros(len(records), dtype=np.bool_)
    is_used[rows[rows >= 0]] = True
    is_root = _root(records, names, is_used)
    problems.repair(
        "categories without a box that are the supercategory of all others, left out",
        [str(names[row]) for row in np.flatnonzero(is_root)],
    )
    name_of_id = _name_of_id(identifiers.numbers, names, is_usable & ~is_root, problems)
    categories = CategoryMap(
        tuple(Category(name, number) for number, name in sorted(name_of_id.items()))
    )
    label_of_row = np.array(
        [categories.label_of_dataset_id.get(number, -1) for number in identifiers.numbers.tolist()]
        + [-1],  # row -1: unknown
        dtype=np.int64,
    )
    return CategoryColumns(categories, label_of_row[rows], bool(is_usable.all()))


def _name(record: Record) -> str | None:
    """Return a name that can be written to a file, None where there is none."""
    name = record.get("name")
    if not isinstance(name, str) or not name.strip():
        return None
    try:
        name.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return None
    return name


def _root(records: Sequence[Record], names: Sequence[str | None], is_used: Flags) -> Flags:
    """Find the root that Roboflow adds: the supercategory of all other classes, without a box.

    It may have the name of the only other class.
    """
    above = [record.get("supercategory") for record in records]
    num_below = Counter(name for name in above if isinstance(name, str))
    is_above_all_others = [
        name is not None and name != parent and num_below[name] == len(records) - 1 > 0
        for name, parent in zip(names, above, strict=True)
    ]
    return ~is_used & np.array(is_above_all_others, dtype=np.bool_)


def _name_of_id(
    numbers: Integers, names: Sequence[str | None], is_taken: Flags, problems: AnnotationProblems
) -> dict[int, str]:
    """Return the name of each id; ids and names that are not one to one are refused."""
    name_of_id: dict[int, str] = {}
    id_of_name: dict[str, int] = {}
    for row in np.flatnonzero(is_taken).tolist():
        number, name = int(numbers[row]), str(names[row])
        if name_of_id.setdefault(number, name) != name:
            problems.refuse("category ids with two names", [number])
        elif id_of_name.setdefault(name, number) != number:
            problems.refuse("category names with two ids (rename or delete one)", [name])
    return name_of_id
