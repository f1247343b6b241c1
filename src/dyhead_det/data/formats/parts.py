"""All parts of a data set: training, validation and test data, each read and checked."""

from dataclasses import replace
from pathlib import Path

from dyhead_det.data.coco.dataset import CocoDataset, require_images
from dyhead_det.data.formats.part_names import PARTS, names_of_part
from dyhead_det.data.formats.read import load_annotations
from dyhead_det.data.formats.source import Format, Source, coco_file, find_source
from dyhead_det.data.formats.voc import IMAGE_SETS
from dyhead_det.data.formats.yolo_config import read_yolo_config
from dyhead_det.errors import DatasetError


def read_parts(source: Source) -> tuple[Format, dict[str, CocoDataset]]:
    """Read all parts of a data set.

    Args:
        source: a folder in any format, a COCO file, or a `data.yaml`; its split, if any, is the
            only part that is read.

    Returns:
        The format; and the parts that there are, of `PARTS`: another split is taken for training.

    Raises:
        DatasetError: if there is none, one cannot be used, or an image file is missing.
    """
    form, sources = part_sources(source)
    parts = {}
    for part, one in sources.items():
        dataset = load_annotations(one)
        require_images(dataset)
        parts[part] = dataset
    return form, parts


def part_sources(source: Source) -> tuple[Format, dict[str, Source]]:
    """Find out which parts a data set has; arguments as in `read_parts`.

    Returns:
        The format; and where each part lies, of `PARTS`: another split is taken for training.

    Raises:
        DatasetError: if there is none.
    """
    form, names = _parts(source)
    if not names:
        raise DatasetError(f"{source.annotations} names no images: none of {', '.join(PARTS)}")
    sources = {}
    for name in names:
        part = _name_of_file(source.annotations) if name == _ONLY else name
        one = source if name == _ONLY else replace(source, split=name)
        sources[part if part in PARTS else "train"] = one
    return form, sources


_ONLY = ""  # a file that is one part itself


def _parts(source: Source) -> tuple[Format, list[str]]:
    place = source.annotations
    if source.split is not None:
        return find_source(source, part="train").format, [source.split]
    if not place.is_dir():
        found = find_source(source, part="train")
        if found.format == "yolo":
            return found.format, _splits_of_yolo(found.annotations)
        return found.format, [_ONLY]
    found = find_source(replace(source, split=_any_part(place)), part="train")
    if found.format == "yolo":
        return found.format, _splits_of_yolo(found.annotations)
    if found.format == "coco":
        return found.format, [name for name in PARTS if coco_file(place, name) is not None]
    return found.format, [name for name in PARTS if _has_voc(place, name)] or ["train"]


def _any_part(folder: Path) -> str:
    """Return a part that a folder has as COCO; where it has none, the name does not matter."""
    return next((name for name in PARTS if coco_file(folder, name) is not None), "train")


def _splits_of_yolo(path: Path) -> list[str]:
    splits = read_yolo_config(path).splits
    return [part for part in PARTS if any(name in splits for name in names_of_part(part))]


def _has_voc(folder: Path, part: str) -> bool:
    names = names_of_part(part)
    if (folder / IMAGE_SETS).is_dir():
        return any((folder / IMAGE_SETS / f"{name}.txt").is_file() for name in names)
    return any((folder / name).is_dir() for name in names)


def _name_of_file(path: Path) -> str:
    """Return the part that a COCO file is by its name, such as `instances_val2017.json`."""
    return next((name for name in ("val", "test") if name in path.stem.lower()), "train")
