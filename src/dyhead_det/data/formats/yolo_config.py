"""`data.yaml` of a YOLO data set: class names, and where the images of each split lie."""

import math
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dyhead_det.config.yaml12 import MAX_CHARACTERS, read_yaml
from dyhead_det.data.formats.part_names import PARTS, names_of_part
from dyhead_det.data.formats.text_files import read_lines, read_text
from dyhead_det.data.images import image_suffixes
from dyhead_det.errors import DatasetError
from dyhead_det.escaping import listed, printable


@dataclass(frozen=True)
class YoloConfig:
    """What a `data.yaml` says.

    Attributes:
        path: the file.
        root: the folder that its paths start from.
        names: class names by class id.
        splits: by name, the folders and lists of images, as they are written.
        num_box_values: numbers of a line behind the class where lines hold key points behind the
            box; None where a longer line is a polygon.
        remarks: what was taken otherwise than it is written.
    """

    path: Path
    root: Path
    names: dict[int, str]
    splits: dict[str, list[str]]
    num_box_values: int | None
    remarks: tuple[str, ...]

    def images(self, split: str) -> list[Path]:
        """Return the image files of a split: folders sorted by name, lists in their order.

        Raises:
            DatasetError: if there is no such split, or no image in it.
        """
        name = next((name for name in names_of_part(split) if name in self.splits), None)
        if name is None:
            there = listed(self.splits) or "none"
            raise DatasetError(f"{self.path} has no split {printable(split)!r}; it has: {there}")
        paths = [path for entry in self.splits[name] for path in self._images_of(entry, name)]
        if not paths:
            raise DatasetError(
                f"{self.path}: no images in {name}: {listed(self.splits[name])}; looked below "
                f"{self.root}"
            )
        return paths

    def _images_of(self, entry: str, split: str) -> list[Path]:
        place = self.root / entry
        if not place.exists() and entry.startswith("../"):
            # Roboflow writes ../train/images for what lies beside the file.
            place = self.root / entry.removeprefix("../")
        if place.is_dir():
            suffixes = image_suffixes()
            found = _normal(place).rglob("*")
            return sorted(path for path in found if path.suffix.lower() in suffixes)
        if place.is_file() and place.suffix.lower() == ".txt":
            return [_listed_image(line, place, self.root) for line in read_lines(place)]
        raise DatasetError(
            f"{self.path}: {split}: {printable(entry)} is neither a folder nor a .txt list of "
            f"images; looked for {place}"
        )


def read_yolo_config(path: Path) -> YoloConfig:
    """Read a `data.yaml`.

    Raises:
        DatasetError: if it cannot be read or is none.
    """
    content = read_yaml_mapping(path)
    if not is_yolo_config(content):
        raise DatasetError(
            f"{path} is no data.yaml of a YOLO data set, which has names, and the images of "
            "train and val"
        )
    folder = _normal(path).parent
    splits = {}
    for name in (name for part in PARTS for name in names_of_part(part)):
        entries = content.get(name)
        entries = [entries] if isinstance(entries, str) else entries
        if entries in (None, "", []):
            continue
        if not isinstance(entries, list) or not all(isinstance(e, str) and e for e in entries):
            raise DatasetError(f"{path}: {name}: neither a path nor a list of paths")
        splits[name] = entries
    root, remarks = _root(content.get("path"), folder)
    return YoloConfig(
        path=path,
        root=root,
        names=_names(content, path),
        splits=splits,
        num_box_values=_num_box_values(content.get("kpt_shape"), path),
        remarks=remarks,
    )


def is_yolo_config(content: dict[str, Any]) -> bool:
    """Tell whether a YAML mapping is YOLO's rather than one of ours."""
    return "names" in content or "nc" in content


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """Read a stranger's YAML file, without any code.

    Raises:
        DatasetError: if it cannot be read, or is no mapping.
    """
    try:
        text = read_text(path, max_bytes=4 * MAX_CHARACTERS)
        content, problems = read_yaml(text, is_foreign=True)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # no UTF-8 text, too
        raise DatasetError(f"{path} is no YAML file: {error}") from error
    if problems:
        raise DatasetError(*(f"{path}: {problem}" for problem in problems))
    if not isinstance(content, dict):
        raise DatasetError(f"{path} is no YAML file with keys and values")
    return content


def _normal(path: Path) -> Path:
    """Return an absolute path without `..`; links stay, since label files are found by names."""
    return Path(os.path.normpath(path.absolute()))


def _names(content: dict[str, Any], path: Path) -> dict[int, str]:
    names = content.get("names")
    number = content.get("nc")
    if names is None and isinstance(number, int) and 0 < number <= 100_000:
        return {class_id: f"class_{class_id}" for class_id in range(number)}
    if isinstance(names, list):
        names = {str(class_id): name for class_id, name in enumerate(names)}
    if not isinstance(names, dict) or not names:
        raise DatasetError(f"{path}: names: neither a list nor a mapping from class ids to names")
    by_id: dict[int, str] = {}
    for key, name in names.items():
        is_name = isinstance(name, str | int | float) and bool(str(name).strip())
        if not str(key).isdecimal() or len(str(key)) > 9 or not is_name:
            raise DatasetError(
                f"{path}: names: {printable(key, max_length=80)}: "
                f"{printable(name, max_length=80)}: no class id from 0 on with a name"
            )
        by_id[int(key)] = str(name)
    twice = sorted(name for name, times in Counter(by_id.values()).items() if times > 1)
    if twice:
        raise DatasetError(f"{path}: names: one name for several class ids: {listed(twice)}")
    if isinstance(number, int) and number != len(by_id):
        raise DatasetError(f"{path}: nc is {number}, but there are {len(by_id)} names")
    return dict(sorted(by_id.items()))


def _root(written: object, folder: Path) -> tuple[Path, tuple[str, ...]]:
    """Return the folder that paths start from: `path:` where it is there, else the file's own."""
    if not isinstance(written, str) or not written:
        return folder, ()
    root = folder / written
    try:
        if root.is_dir():
            return _normal(root), ()
    except (OSError, ValueError):  # nothing that a folder can be called
        pass
    return folder, (f"path: {printable(written, max_length=160)}",)


def _num_box_values(shape: object, path: Path) -> int | None:
    """Return how many numbers follow the class in lines with key points."""
    if shape is None:
        return None
    is_shape = isinstance(shape, list) and all(isinstance(n, int) and 0 < n < 10**4 for n in shape)
    if not isinstance(shape, list) or not is_shape:
        raise DatasetError(f"{path}: kpt_shape: not two numbers")
    return 4 + math.prod(shape)


def _listed_image(line: str, listed_in: Path, root: Path) -> Path:
    """Return the image that a line names, from the list's folder or from the data set's."""
    beside = listed_in.parent / line
    try:
        is_below_root = not beside.exists() and (root / line).exists()
        return _normal(root / line if is_below_root else beside)
    except (OSError, ValueError):  # nothing that a file can be called
        return beside
