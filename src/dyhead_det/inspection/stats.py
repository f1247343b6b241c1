"""`data stats`: classes and sizes of a data set as its detector sees them, and how anchors fit."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dyhead_det.config.schema import ATSSConfig, InputConfig, ModelConfig
from dyhead_det.data.coco.dataset import CocoDataset
from dyhead_det.data.coco.records import Floats, Integers
from dyhead_det.data.statistics import MEDIUM_SIDE, SMALL_SIDE, DataStatistics, count
from dyhead_det.files import written_whole
from dyhead_det.inspection.anchor_fit import (
    REACHED_IOU,
    AnchorLevel,
    AnchorSuggestion,
    anchor_levels,
    best_ious,
    suggest_anchors,
    with_anchors,
)
from dyhead_det.tables import text_table

STATS_FILES = ("stats.json", "stats.png")
_SIZE_NAMES = ("small", "medium", "large")
# A suggestion that reaches less than so many more of the boxes is none.
_LEAST_GAIN = 0.01


class Sizes(NamedTuple):
    """Number of objects by COCO's sizes: under 32, under 96, from 96 pixels squared on."""

    small: int
    medium: int
    large: int


@dataclass(frozen=True)
class ClassStats:
    """What there is of a class, or of all; None where there is nothing to say it of.

    num_images: with an object of it. sizes: at the input of the detector. median_side: square root
    of the area there, in pixels. reached: share of the objects that an anchor overlaps by half.
    """

    name: str
    num_images: int
    num_objects: int
    sizes: Sizes
    median_side: float | None
    reached: float | None


@dataclass(frozen=True, eq=False)
class DataStats:
    """Statistics of a data set for a detector; objects are annotations that are no crowds.

    Attributes:
        dataset: what was counted.
        counts: in pixels of the files.
        config_name: where the detector comes from.
        model: the detector.
        levels: its anchors, none for FCOS.
        sides_wh: (M, 2) width and height of the objects at its input.
        objects_per_image: (N,).
        classes: in label order.
        total: of all classes.
        reached_by_size: share of the small, medium and large objects that an anchor reaches.
        ious: (M,) of each object with its best anchor; None for FCOS.
        suggestion: anchors that fit better, None where there are none.
        suggested_ious: (M,) with these.
    """

    dataset: CocoDataset
    counts: DataStatistics
    config_name: str
    model: ModelConfig
    levels: tuple[AnchorLevel, ...]
    sides_wh: Floats
    objects_per_image: Integers
    classes: tuple[ClassStats, ...]
    total: ClassStats
    reached_by_size: tuple[float | None, ...]
    ious: Floats | None
    suggestion: AnchorSuggestion | None
    suggested_ious: Floats | None

    def text(self) -> str:
        """Return tables for a terminal, and what to change about the anchors."""
        return "\n\n".join([self._overview(), self._table(), self._anchors()])

    def _overview(self) -> str:
        counts, size = self.counts, self.model.input
        smallest, middle, largest = (f"{width} x {height}" for width, height in counts.image_sizes)
        in_files = Sizes(counts.small, counts.medium, counts.large)
        rows = [
            ("images", f"{counts.num_images}, {counts.num_empty} of them without an object"),
            ("sizes of images", f"{smallest} to {largest}, by area in the middle {middle}"),
            ("objects", f"{counts.num_objects}, and {counts.num_crowds} crowds"),
            (
                "objects in an image",
                f"{self.objects_per_image.mean():.1f} on average, {counts.most_objects} at most",
            ),
            ("objects as in the files", _shares(in_files)),
            (
                f"at the input of {self.config_name}",
                f"{_shares(self.total.sizes)} (shorter edge {size.short_edge}, longer edge at most "
                f"{size.long_edge})",
            ),
        ]
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {value}" for name, value in rows]
        return "\n".join([f"{self.dataset.annotations_path}:", *lines])

    def _table(self) -> str:
        header = ("class", "images", "objects", *_SIZE_NAMES, "median side", "reached")
        return text_table(
            header,
            [
                (
                    each.name,
                    each.num_images,
                    each.num_objects,
                    *each.sizes,
                    "-" if each.median_side is None else f"{each.median_side:.0f}",
                    _percent(each.reached),
                )
                for each in (*self.classes, self.total)
            ],
        )

    def _anchors(self) -> str:
        if self.ious is None:
            return f"{self.config_name} has no anchors: {self.model.detector.name} has points."
        by_size = ", ".join(
            f"{name} {_percent(share)}"
            for name, share in zip(_SIZE_NAMES, self.reached_by_size, strict=True)
        )
        lines = [
            f"The anchors of {self.config_name} reach {_percent(self.total.reached)} of the "
            f"objects with IoU {REACHED_IOU} or more ({by_size}); the mean IoU is "
            f"{self.ious.mean():.2f}."
        ]
        if isinstance(self.model.detector, ATSSConfig):
            lines.append("ATSS takes the best ones for each object, however small their IoU is.")
        if self.suggestion is not None and self.suggested_ious is not None:
            share = _percent(float((self.suggested_ious >= REACHED_IOU).mean()))
            mean = self.suggested_ious.mean()
            lines.append(f"As many others reach {share}, with a mean of {mean:.2f}:")
            lines += [f"  --set {override!r}" for override in self.suggestion.overrides()]
        return "\n".join(lines)

    def to_plain(self) -> dict[str, Any]:
        """Return all numbers as plain values."""
        suggestion = None
        if self.suggestion is not None and self.suggested_ious is not None:
            suggestion = {
                **self.suggestion._asdict(),
                "reached": float((self.suggested_ious >= REACHED_IOU).mean()),
                "mean_iou": float(self.suggested_ious.mean()),
            }
        return {
            "annotations": str(self.dataset.annotations_path),
            "config": self.config_name,
            "counts_in_files": asdict(self.counts),
            "classes": [_plain(each) for each in self.classes],
            "total": _plain(self.total),
            "reached_iou": REACHED_IOU,
            "mean_iou": None if self.ious is None else float(self.ious.mean()),
            "reached_by_size": dict(zip(_SIZE_NAMES, self.reached_by_size, strict=True)),
            "suggested_anchors": suggestion,
        }

    def write_json(self, path: Path) -> None:
        """Write all numbers to a file."""
        with written_whole(path) as unfinished:
            text = json.dumps(self.to_plain(), indent=1, ensure_ascii=False)
            unfinished.write_text(text + "\n", encoding="utf-8")


def compute_stats(dataset: CocoDataset, model: ModelConfig, *, config_name: str) -> DataStats:
    """Count what a data set of at least one object holds, and try anchors on it.

    Args:
        dataset: of images and annotations.
        model: the detector that looks at them.
        config_name: what messages call it.
    """
    objects = dataset.select_annotations(~dataset.is_crowd)
    image_of_row = objects.image_indices
    scales = _scales(objects.sizes_wh, model.input)[image_of_row, None]
    boxes = objects.boxes.astype(np.float64) * scales
    sizes_wh = objects.sizes_wh[image_of_row] * scales
    sides_wh = boxes[:, 2:] - boxes[:, :2]
    levels = anchor_levels(model)
    ious = best_ious(boxes, sizes_wh, levels) if levels else None
    suggestion = suggest_anchors(boxes, sizes_wh, model)
    suggested = None
    if suggestion is not None and ious is not None:
        suggested = best_ious(boxes, sizes_wh, anchor_levels(with_anchors(model, suggestion)))
        gain = (suggested >= REACHED_IOU).mean() - (ious >= REACHED_IOU).mean()
        if gain < _LEAST_GAIN:
            suggestion = suggested = None
    rows_of = [("all classes", np.ones(len(boxes), dtype=np.bool_))]
    rows_of += [(name, objects.labels == k) for k, name in enumerate(objects.categories.names)]
    total, *classes = (
        ClassStats(
            name=name,
            num_images=len(np.unique(image_of_row[rows])),
            num_objects=int(rows.sum()),
            sizes=_sizes(sides_wh[rows]),
            median_side=_median(np.sqrt(sides_wh[rows].prod(axis=1))),
            reached=None if ious is None else _reached(ious[rows]),
        )
        for name, rows in rows_of
    )
    grade = np.digitize(sides_wh.prod(axis=1), (SMALL_SIDE**2, MEDIUM_SIDE**2))
    return DataStats(
        dataset=dataset,
        counts=count(dataset),
        config_name=config_name,
        model=model,
        levels=levels,
        sides_wh=sides_wh,
        objects_per_image=np.diff(objects.offsets),
        classes=tuple(classes),
        total=total,
        reached_by_size=tuple(
            None if ious is None else _reached(ious[grade == number]) for number in range(3)
        ),
        ious=ious,
        suggestion=suggestion,
        suggested_ious=suggested,
    )


def _scales(sizes_wh: Integers, config: InputConfig) -> Floats:
    """Return the factor that each image is resized by at test time, (N,), before rounding."""
    short, long = sizes_wh.min(axis=1), sizes_wh.max(axis=1)
    return np.asarray(np.minimum(config.short_edge / short, config.long_edge / long))


def _sizes(sides_wh: Floats) -> Sizes:
    grades = np.digitize(sides_wh.prod(axis=1), (SMALL_SIDE**2, MEDIUM_SIDE**2))
    small, medium, large = np.bincount(grades, minlength=3).tolist()
    return Sizes(small, medium, large)


def _median(values: Floats) -> float | None:
    return float(np.median(values)) if len(values) else None


def _reached(ious: Floats) -> float | None:
    return float((ious >= REACHED_IOU).mean()) if len(ious) else None


def _shares(sizes: Sizes) -> str:
    total = max(1, sum(sizes))
    return ", ".join(
        f"{name} {number / total:.0%}" for name, number in zip(_SIZE_NAMES, sizes, strict=True)
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def _plain(each: ClassStats) -> dict[str, Any]:
    return {**asdict(each), "sizes": each.sizes._asdict()}
