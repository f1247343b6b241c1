"""Where annotations lie and in which format: given by path and format, or found by their layout.

| format | what lies in the folder of the data set |
|---|---|
| coco | `train.json` and `val.json`; images in `images/`, in `train/` and `val/`, or beside them |
| coco | `annotations/instances_train2017.json`, the images in `train2017/` (or without the year) |
| coco | `train/_annotations.coco.json`, the images beside it (`valid/` for `val`) |
| yolo | `data.yaml` |
| voc | `ImageSets/Main/train.txt`, `Annotations/` and `JPEGImages/` |
| voc | XML files and images, in `train/` and `val/` (or `valid/`), or anywhere for `train` |
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dyhead_det.data.formats.part_names import PARTS, names_of_part
from dyhead_det.data.formats.voc import IMAGE_SETS
from dyhead_det.data.stores.store import ImageLocation
from dyhead_det.errors import DatasetError
from dyhead_det.escaping import listed
from dyhead_det.files import video_advice

Format = Literal["coco", "yolo", "voc"]
AnyFormat = Literal["auto", "coco", "yolo", "voc"]
Part = Literal["train", "val"]

YAML_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Source:
    """Annotations and their images.

    Attributes:
        annotations: a file, or the folder of a data set.
        images: where the images are, as `open_store` takes it; None for where the format has them.
        format: how the annotations are written; ``auto`` looks.
        split: which part of a YOLO or VOC data set, or of a folder with several COCO files; None
            for that which is asked for.
    """

    annotations: Path
    images: ImageLocation | None = None
    format: AnyFormat = "auto"
    split: str | None = None


@dataclass(frozen=True)
class FoundSource:
    """What `find_source` found.

    annotations: for coco a JSON file, for yolo a `data.yaml`, for voc a folder; images: None where
    the format says it.
    """

    format: Format
    annotations: Path
    images: ImageLocation | None
    split: str


def find_source(source: Source, *, part: Part) -> FoundSource:
    """Find out the format of a source, and where its files lie.

    Args:
        source: what was asked for.
        part: what it is used for, which is the split where the source names none.

    Raises:
        DatasetError: if nothing is there, or more than one thing could be meant.
    """
    place, split = source.annotations, source.split or part
    if not place.is_dir():
        if advice := video_advice(place):
            raise DatasetError(advice)
        form = _format_of_file(place) if source.format == "auto" else source.format
        if form == "voc":
            key = f"data.{part}.annotations"
            reason = "is a file" if place.is_file() else "is not there"
            raise DatasetError(
                f"{place} {reason}; Pascal VOC data are given as a folder: check {key}"
            )
        images = source.images
        if form == "coco" and images is None:
            images = _images_of_coco_file(place)
        return FoundSource(form, place, images, split)
    found = formats_of_folder(place, source.format)
    if len(found) > 1:
        names = "; ".join(f"{form}: {path}" for form, path in found.items())
        raise DatasetError(
            f"{place} has annotations in several formats ({names}); say by data.format which to use"
        )
    if not found:
        raise DatasetError(_nothing_found(place, source.format))
    ((form, annotations),) = found.items()
    if form != "coco":
        return FoundSource(form, annotations, source.images, split)
    named = coco_file(place, split)
    if named is None:
        raise DatasetError(
            f"{place} has no COCO file for {split}: no {split}.json, "
            f"annotations/instances_{split}*.json or {split}/_annotations.coco.json; name it by "
            f"data.{part}.annotations"
        )
    images = source.images or _images_of_coco_file(named)
    return FoundSource("coco", named, images, split)


def find_yolo_config(folder: Path) -> Path | None:
    """Return the `data.yaml` of a folder, whatever its name where it is the only YAML file."""
    for name in ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml"):
        if (folder / name).is_file():
            return folder / name
    others = [path for suffix in YAML_SUFFIXES for path in folder.glob(f"*{suffix}")]
    return others[0] if len(others) == 1 and (folder / "labels").is_dir() else None


def formats_of_folder(folder: Path, wanted: AnyFormat) -> dict[Format, Path]:
    """Return the formats of a folder among those wanted, and where it shows."""
    looks: dict[Format, Callable[[Path], Path | None]] = {
        "coco": _find_coco,
        "yolo": find_yolo_config,
        "voc": _find_voc,
    }
    found = {form: look(folder) for form, look in looks.items() if wanted in ("auto", form)}
    return {form: path for form, path in found.items() if path is not None}


def _format_of_file(path: Path) -> Format:
    if path.suffix.lower() in YAML_SUFFIXES:
        return "yolo"
    return "voc" if path.suffix.lower() == ".xml" else "coco"


def _find_coco(folder: Path) -> Path | None:
    files = (coco_file(folder, part) for part in PARTS)
    return next((path for path in files if path is not None), None)


def coco_file(folder: Path, split: str) -> Path | None:
    """Return the COCO file of a part of a data set, None where there is none."""
    for name in names_of_part(split):
        for path in (
            folder / f"{name}.json",
            folder / "annotations" / f"{name}.json",
            folder / "annotations" / f"instances_{name}.json",
            folder / "annotations" / f"instances_{name}2017.json",
            folder / name / "_annotations.coco.json",
        ):
            if path.is_file():
                return path
    return None


def _images_of_coco_file(path: Path) -> Path:
    """Return where the images of a file lie by its name, else the folder that it lies in."""
    folder = path.parent.parent if path.parent.name == "annotations" else path.parent
    name = path.stem.removeprefix("instances_")
    for candidate in (folder / "images" / name, folder / name, folder / "images"):
        if candidate.is_dir():
            return candidate
    return path.parent


def _find_voc(folder: Path) -> Path | None:
    if (folder / IMAGE_SETS).is_dir():
        return folder
    patterns = ("*.xml", "*/*.xml", "*/*/*.xml")
    return folder if any(any(folder.glob(pattern)) for pattern in patterns) else None


def _nothing_found(folder: Path, form: AnyFormat) -> str:
    deeper = [path.parents[1] for path in folder.glob(f"*/{IMAGE_SETS}")]
    deeper += [path.parent for path in folder.glob("*/data.yaml")]
    if deeper:
        return f"{folder} is no data set, but holds some; give one of them: {listed(deeper)}"
    if (folder / "labels").is_dir():
        return (
            f"{folder} has labels, but no data.yaml of a YOLO data set; write one: "
            "train: images/train, val: images/val, names: [first, second]"
        )
    looked_for = {
        "coco": "train.json, annotations/instances_train*.json or train/_annotations.coco.json",
        "yolo": "data.yaml",
        "voc": f"{IMAGE_SETS}, or XML files",
    }
    wanted = looked_for.items() if form == "auto" else [(form, looked_for[form])]
    return f"{folder} has no annotations that are known: " + "; ".join(
        f"{name}: {what}" for name, what in wanted
    )
