"""YOLO label files -> COCO records: one text file an image, lines in fractions of its size.

A line is ``class x y width height``, the center of the box first, or a polygon, around which the
box is taken: ``class x1 y1 x2 y2 x3 y3 ...``. With `kpt_shape` in `data.yaml` key points follow the
box, and are left out. The label file of `images/a.jpg` is `labels/a.txt`, as in Ultralytics; an
image without one has no objects.
"""

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from dyhead_det.data.coco.file import CocoRecords
from dyhead_det.data.coco.problems import AnnotationProblems
from dyhead_det.data.coco.records import Record
from dyhead_det.data.formats.image_sizes import image_sizes
from dyhead_det.data.formats.text_files import read_text
from dyhead_det.data.formats.yolo_config import YoloConfig
from dyhead_det.errors import DatasetError

_MALFORMED = "lines that are neither `class x y width height` nor a polygon, file and line"
_NO_FRACTIONS = "lines with numbers beyond 0..1, fractions of the image (pixels?), file and line"
_UNKNOWN_CLASS = "class ids that data.yaml does not name, file and line"
_COUNTED_FROM_1 = f"{_UNKNOWN_CLASS} (they look counted from 1, YOLO counts from 0)"
_GREATEST_FRACTION = 2.0  # boxes may reach out of their image

# Undoes the rounding of fractions that were written with all their digits: 99.99999999999999 was
# 100, and an area of 32 x 32 pixels shall stay one.
_DECIMALS = 9


@dataclass
class _Labels:
    """The lines of all label files as records, and what is wrong with them."""

    config: YoloConfig
    records: list[Record] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    malformed: list[str] = field(default_factory=list)
    no_fractions: list[str] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)

    def add(self, lines: Sequence[str], title: str, image: Record) -> None:
        """Add the lines of one file."""
        for number, line in enumerate(lines, start=1):
            if line and not line.isspace():
                self._add_line(line, f"{title}:{number}", image)

    def _add_line(self, line: str, title: str, image: Record) -> None:
        numbers = _numbers(line, self.config.num_box_values)
        if numbers is None:
            self.malformed.append(title)
            return
        class_id, *values = numbers
        if class_id not in self.config.names:
            self.unknown[title] = int(class_id)
        elif any(abs(value) > _GREATEST_FRACTION for value in values if math.isfinite(value)):
            self.no_fractions.append(title)
        else:
            record = {
                "id": len(self.records) + 1,
                "image_id": image["id"],
                "category_id": int(class_id),
            }
            self.records.append(record | _shape(values, image["width"], image["height"]))
            self.titles.append(title)

    def report(self, problems: AnnotationProblems) -> None:
        """Pass on what is wrong."""
        problems.refuse(_MALFORMED, self.malformed)
        problems.refuse(_NO_FRACTIONS, self.no_fractions)
        last = max(self.config.names)
        used = {record["category_id"] for record in self.records}
        looks_counted_from_1 = set(self.unknown.values()) == {last + 1} and 0 not in used
        problems.refuse(
            _COUNTED_FROM_1 if looks_counted_from_1 else _UNKNOWN_CLASS,
            [f"{title}: {class_id}" for title, class_id in self.unknown.items()],
        )


def read_yolo(
    config: YoloConfig,
    split: str,
    problems: AnnotationProblems,
    *,
    broken_images: Literal["error", "skip"],
) -> tuple[CocoRecords, Path]:
    """Read a split as COCO records.

    Args:
        config: what `data.yaml` says.
        split: a key of it.
        problems: gets what was repaired and what is refused.
        broken_images: what images without a readable size are: refused, or left out.

    Returns:
        The records, image ids from 1 on and category ids as in `data.yaml`; and the folder that the
        file names start from.

    Raises:
        DatasetError: if there is no such split, or no image in it.
    """
    problems.repair("folders that are not there, the file's own taken instead", config.remarks)
    paths = config.images(split)
    once = list(dict.fromkeys(paths))
    if len(once) < len(paths):
        repeated = [path.name for path, number in Counter(paths).items() if number > 1]
        problems.repair("images listed twice, taken once", repeated)
    folder = Path(os.path.commonpath([path.parent for path in once]))
    images = _images(once, folder, problems, broken_images=broken_images)

    labels = _Labels(config)
    num_files = 0
    for path, image in tqdm(images, desc="labels", unit="file", leave=False, disable=None):
        label_path = label_file(path)
        lines = _read_lines(label_path, problems)
        if lines is not None:
            num_files += 1
            labels.add(lines, _below(label_path, config.root), image)
    if images and not num_files and not problems.refused:
        raise DatasetError(
            f"{config.path}: none of the {len(images)} images of {split} has a label file; looked "
            f"for {label_file(images[0][0])} and so on"
        )
    labels.report(problems)
    categories = [{"id": class_id, "name": name} for class_id, name in config.names.items()]
    records = [image for _, image in images]
    return CocoRecords(records, labels.records, categories, labels.titles), folder


def label_file(image: Path) -> Path:
    """Return where the labels of an image lie: in `labels` for the last `images` of its path."""
    parts = list(image.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _images(
    paths: Sequence[Path],
    folder: Path,
    problems: AnnotationProblems,
    *,
    broken_images: Literal["error", "skip"],
) -> list[tuple[Path, Record]]:
    images = []
    for number, (path, size) in enumerate(zip(paths, image_sizes(paths), strict=True), start=1):
        name = path.relative_to(folder).as_posix()
        if isinstance(size, DatasetError):
            reason = f"{name}: {str(size).removeprefix(f'{path} ')}"
            if broken_images == "skip":
                problems.repair("images that cannot be read, left out", [reason])
            else:
                problems.refuse("images that cannot be read", [reason])
            continue
        width, height = size
        image = {"id": number, "file_name": name, "width": width, "height": height}
        images.append((path, image))
    return images


def _read_lines(path: Path, problems: AnnotationProblems) -> list[str] | None:
    """Return the lines of a label file, None where there is none or it cannot be read."""
    try:
        return read_text(path).split("\n")
    except FileNotFoundError:
        return None
    except OSError as error:
        problems.refuse("label files that cannot be read", [f"{path}: {error.strerror}"])
    except ValueError as error:
        problems.refuse("label files that are no text", [f"{path}: {error}"])
    return None


def _numbers(line: str, num_box_values: int | None) -> list[float] | None:
    """Return class and coordinates, None where a line has another form."""
    try:
        numbers = [float(text) for text in line.split()]
    except ValueError:
        return None
    num_values = len(numbers) - 1
    if num_box_values is not None and num_values == num_box_values:
        numbers, num_values = numbers[:5], 4
    is_polygon = num_values >= 6 and num_values % 2 == 0
    if num_values != 4 and not is_polygon:
        return None
    return numbers if numbers[0].is_integer() else None


def _shape(values: Sequence[float], width: int, height: int) -> Record:
    """Return a box or a polygon in pixels."""
    if len(values) == 4:
        x, y, w, h = values
        sides = (w * width, h * height)
        corner = (x * width - sides[0] / 2, y * height - sides[1] / 2)
        return {"bbox": [round(value, _DECIMALS) for value in (*corner, *sides)]}
    scales = (width, height)
    points = [round(value * scales[i % 2], _DECIMALS) for i, value in enumerate(values)]
    return {"segmentation": [points]}


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
