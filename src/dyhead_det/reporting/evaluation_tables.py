"""Tables of an evaluation: by class, by kind of error, by crowding, by image."""

from collections.abc import Callable

import numpy as np

from dyhead_det.evaluation.analysis.analyze import Analysis
from dyhead_det.evaluation.analysis.error_kinds import KINDS, Kind
from dyhead_det.evaluation.coco_scores import EvalResult, decimal
from dyhead_det.reporting.page.page import Table

_MEANINGS: dict[Kind, str] = {
    "class": "right place, wrong class",
    "localization": "right class, IoU of .1 to .5 only",
    "both": "wrong class, and the place is not right",
    "duplicate": "an object that a better detection has already",
    "background": "nothing annotated there",
    "missed": "an object that nothing finds",
}


def evaluation_tables(result: EvalResult, analysis: Analysis) -> dict[str, Table]:
    """Return the tables by name, with numbers as text as they are shown."""
    return {
        "classes": _classes(result, analysis),
        "errors": _errors(analysis),
        "errors_by_class": Table(
            ("class", *KINDS),
            [
                (name, *counts.values())
                for name, counts in zip(
                    analysis.class_names, analysis.errors.counts_of_class, strict=True
                )
            ],
        ),
        "confusion": Table(
            ("annotated as / detected as", *analysis.class_names, "missed"),
            [
                (name, *counts)
                for name, counts in zip(
                    (*analysis.class_names, "background"), analysis.confusion.tolist(), strict=True
                )
            ],
        ),
        "crowding": Table(
            ("objects in an image", "images", "objects", "AP", "AP50"),
            [
                (
                    each.name,
                    each.num_images,
                    each.num_objects,
                    decimal(each.AP),
                    decimal(each.AP50),
                )
                for each in analysis.crowding
            ],
        ),
    }


def image_table(analysis: Analysis, name: Callable[[int], str] | None) -> Table:
    """Return what became of the objects and detections of each image.

    Args:
        analysis: of the evaluation.
        name: of an image by its id, where it is known.
    """
    ids = analysis.image_ids.tolist()
    names = ["" if name is None else name(image_id) for image_id in ids]
    columns = (
        ids,
        names,
        analysis.images.num_found.tolist(),
        analysis.images.num_missed.tolist(),
        analysis.images.num_false.tolist(),
    )
    return Table(
        ("image id", "file", "objects found", "objects missed", "false detections"),
        list(zip(*columns, strict=True)),
    )


def confusions(analysis: Analysis, *, most: int) -> list[tuple[str, str, int]]:
    """Return the most frequent pairs of two classes, annotated and detected."""
    between = analysis.confusion[:-1, :-1].copy()
    np.fill_diagonal(between, 0)
    order = np.argsort(-between, axis=None, kind="stable")[:most]
    rows, columns = np.unravel_index(order, between.shape)
    names = analysis.class_names
    return [
        (names[row], names[column], int(between[row, column]))
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
        if between[row, column]
    ]


def _classes(result: EvalResult, analysis: Analysis) -> Table:
    rows = []
    for line, curve in zip(result.classes, analysis.of_classes, strict=True):
        best = None if curve is None else curve.best
        numbers = (None, None, None) if best is None else (best.precision, best.recall, best.f1)
        aps = (line.AP, line.AP50, line.AP75, line.APs, line.APm, line.APl)
        rows.append((line.name, line.num_boxes, *map(decimal, (*aps, line.min_score, *numbers))))
    header = ("class", "objects", "AP", "AP50", "AP75", "APs", "APm", "APl")
    return Table((*header, "score", "precision", "recall", "F1"), rows)


def _errors(analysis: Analysis) -> Table:
    return Table(
        ("kind", "errors", "AP50 gained", "what it is"),
        [
            (kind, analysis.errors.counts[kind], decimal(analysis.errors.gains[kind]), meaning)
            for kind, meaning in _MEANINGS.items()
        ],
    )
