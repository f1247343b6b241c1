"""What training takes without a word and a person may not have meant: odd boxes, odd classes."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from dyhead_det.data.coco.dataset import CocoDataset
from dyhead_det.data.coco.problems import AnnotationProblems
from dyhead_det.data.coco.records import Floats
from dyhead_det.data.statistics import count

# Two objects of one class do not lie that close; one that was drawn twice does.
_DRAWN_TWICE_IOU = 0.9
_TINY_SIDE = 4  # pixels
_WHOLE_IMAGE = 0.98  # of width and of height
_RARE = 20  # objects
_IMBALANCE = 50  # times as many objects


class _Titles(NamedTuple):
    """What messages call annotations: file and line where there are any, else image and id."""

    dataset: CocoDataset
    lines: Sequence[str] | None

    @property
    def kind(self) -> str:
        return "images and annotation ids" if self.lines is None else "file and line"

    def __call__(self, image: int, *rows: int) -> str:
        ids = [int(self.dataset.annotation_ids[row]) for row in rows]
        if self.lines is not None:
            return " = ".join(self.lines[number - 1] for number in ids)
        return f"{self.dataset.file_names[image]}: {' = '.join(map(str, ids))}"


def add_suspicions(
    dataset: CocoDataset, problems: AnnotationProblems, lines: Sequence[str] | None = None
) -> None:
    """Add what looks odd to the problems of a data set.

    Args:
        dataset: at least one image.
        problems: those of its annotations.
        lines: file and line of the annotation of each id from 1 on; None where ids say it.
    """
    titles = _Titles(dataset, lines)
    _add_odd_sizes(dataset, problems, titles)
    _add_drawn_twice(dataset, problems, titles)
    _add_odd_classes(dataset, problems)
    objects_of_image = np.diff(dataset.select_annotations(~dataset.is_crowd).offsets)
    problems.note(
        "images without an object",
        [dataset.file_names[i] for i in np.flatnonzero(objects_of_image == 0).tolist()],
    )


def _add_odd_sizes(dataset: CocoDataset, problems: AnnotationProblems, titles: _Titles) -> None:
    sides = dataset.boxes_xywh[:, 2:]
    sizes_wh = np.repeat(dataset.sizes_wh, np.diff(dataset.offsets), axis=0)
    is_object = ~dataset.is_crowd
    is_tiny = is_object & (sides < _TINY_SIDE).any(axis=1)
    covers_all = is_object & (sides >= _WHOLE_IMAGE * sizes_wh).all(axis=1)
    image_of_row = dataset.image_indices
    for kind, flags in (
        (f"boxes with a side under {_TINY_SIDE} pixels", is_tiny),
        ("boxes that cover their whole image", covers_all),
    ):
        problems.note(
            f"{kind}, {titles.kind}",
            [titles(int(image_of_row[row]), row) for row in np.flatnonzero(flags).tolist()],
        )


def _add_drawn_twice(dataset: CocoDataset, problems: AnnotationProblems, titles: _Titles) -> None:
    """Find pairs of boxes in one place: one object, annotated twice or as two classes."""
    twice: list[str] = []
    as_two_classes: list[str] = []
    for image, (start, end) in enumerate(pairwise(dataset.offsets.tolist())):
        rows = start + np.flatnonzero(~dataset.is_crowd[start:end])
        if len(rows) < 2:
            continue
        for one, other in zip(*_pairs_in_one_place(dataset.boxes_xywh[rows]), strict=True):
            first, second = rows[one], rows[other]
            is_same = dataset.labels[first] == dataset.labels[second]
            (twice if is_same else as_two_classes).append(titles(image, first, second))
    overlap = f"IoU {_DRAWN_TWICE_IOU} or more, {titles.kind}"
    problems.repair(f"two boxes of a class in one place, both kept ({overlap})", twice)
    problems.note(f"boxes of two classes in one place ({overlap})", as_two_classes)


def _pairs_in_one_place(boxes_xywh: Floats) -> tuple[list[int], list[int]]:
    """Return the pairs of boxes (N, 4) that overlap nearly wholly, each once.

    Only boxes whose left sides are close can: sorted by these, few are compared.
    """
    x1, y1, width, height = boxes_xywh.T
    x2, y2, areas = x1 + width, y1 + height, width * height
    order = np.argsort(x1, kind="stable")
    # What begins further to the right leaves less than that IoU to the box on the left.
    reach = x1[order] + (1 - _DRAWN_TWICE_IOU) * width[order]
    ends = np.searchsorted(x1[order], reach, side="right")
    pairs: tuple[list[int], list[int]] = ([], [])
    for position in np.flatnonzero(ends - np.arange(len(order)) > 1).tolist():
        one, others = order[position], order[position + 1 : ends[position]]
        overlaps = np.clip(np.minimum(x2[one], x2[others]) - x1[others], 0, None) * np.clip(
            np.minimum(y2[one], y2[others]) - np.maximum(y1[one], y1[others]), 0, None
        )
        is_same = overlaps >= _DRAWN_TWICE_IOU * (areas[one] + areas[others] - overlaps)
        for other in others[is_same].tolist():
            pairs[0].append(min(int(one), other))
            pairs[1].append(max(int(one), other))
    return pairs


def _add_odd_classes(dataset: CocoDataset, problems: AnnotationProblems) -> None:
    objects = count(dataset).objects_of_class
    problems.note("classes without an object", [name for name, n in objects.items() if not n])
    if dataset.split == "train":
        _add_rare_classes(objects, problems)
    spellings = defaultdict(list)
    for name in objects:
        spellings["".join(name.casefold().split())].append(name)
    alike = [" = ".join(map(repr, names)) for names in spellings.values() if len(names) > 1]
    problems.repair("classes whose names differ in case and spaces only", alike)


def _add_rare_classes(objects: dict[str, int], problems: AnnotationProblems) -> None:
    """Add the classes that there is little to learn from, of the number of objects by name."""
    rare = [f"{name} ({n})" for name, n in objects.items() if 0 < n < _RARE]
    problems.note(f"classes of fewer than {_RARE} objects", rare)
    most = max(objects.values(), default=0)
    problems.note(
        f"classes with less than 1/{_IMBALANCE} of the objects of the most frequent one ({most}); "
        f"data.sampling balances them",
        [f"{name} ({n})" for name, n in objects.items() if 0 < n < most / _IMBALANCE],
    )
