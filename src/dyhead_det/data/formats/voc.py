"""Pascal VOC -> COCO records: one XML file an image, pixels counted from 1, the last one included.

A box from `xmin` to `xmax` is ``xmax - xmin + 1`` pixels wide and begins at ``xmin - 1``. Objects
that are marked `difficult` are what COCO calls crowds: never trained on, and neither counted as
missed nor as false in scoring. Classes are those of `labels.txt`, one a line; without that file
those of the objects, in alphabetical order.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from dyhead_det.data.coco.file import CocoRecords
from dyhead_det.data.coco.images import relative_name
from dyhead_det.data.coco.problems import AnnotationProblems
from dyhead_det.data.coco.records import Record
from dyhead_det.data.formats.part_names import names_of_part
from dyhead_det.data.formats.text_files import read_lines
from dyhead_det.data.formats.xml_tree import Element, read_xml
from dyhead_det.data.images import image_suffixes
from dyhead_det.errors import DatasetError
from dyhead_det.escaping import printable

IMAGE_SETS = "ImageSets/Main"
LABELS = "labels.txt"
DECIMALS = 9  # of a pixel; beyond is what adding and subtracting 1 leaves
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_FLAG = re.compile(r"\s+-?[01]$")  # behind the names in the lists of one class


@dataclass(frozen=True)
class VocFiles:
    """What belongs to one part of a data set.

    named_by: the list or the folder that the files were found by.
    annotations: the XML files.
    images: the folder that `filename` starts from.
    labels: a file of class names, if there is one.
    """

    named_by: Path
    annotations: list[Path]
    images: Path
    labels: Path | None


def find_voc(folder: Path, *, split: str, images: Path | None = None) -> VocFiles:
    """Find the files of a split: named in `ImageSets/Main`, in a folder of its name, or all.

    Args:
        folder: of the data set, or of XML files.
        split: the name of the part.
        images: their folder; None for `JPEGImages`, `images`, or that of the XML files.

    Raises:
        DatasetError: if there is none.
    """
    labels = next((path for path in (folder / LABELS,) if path.is_file()), None)
    sets, names = folder / IMAGE_SETS, names_of_part(split)
    if sets.is_dir():
        listed_in = next((p for n in names if (p := sets / f"{n}.txt").is_file()), None)
        if listed_in is None:
            there = ", ".join(sorted(path.stem for path in sets.glob("*.txt"))) or "nothing"
            raise DatasetError(f"{sets} has no {split}.txt; it has: {there}")
        found = _listed(listed_in, folder / "Annotations")
    else:
        listed_in = next((folder / name for name in names if (folder / name).is_dir()), folder)
        if listed_in == folder and split != "train":
            raise DatasetError(
                f"{folder} has neither {IMAGE_SETS}/{split}.txt nor a folder {split}; a share of "
                "the training images can be taken: data.val: {split: 0.2}"
            )
        found = sorted(listed_in.rglob("*.xml"))
    if not found:
        raise DatasetError(f"{listed_in} names no XML file of Pascal VOC")
    base = folder if sets.is_dir() else listed_in
    places = [base] if base.name.lower() != "annotations" else [base, base.parent]
    beside = [
        path
        for place in places
        for name in ("JPEGImages", "images")
        if (path := place / name).is_dir()
    ]
    return VocFiles(listed_in, found, images or (beside[0] if beside else base), labels)


def _listed(listed_in: Path, annotations: Path) -> list[Path]:
    """Return the XML files that a list names."""
    paths = []
    for line in read_lines(listed_in):
        if relative_name(line) is None:
            raise DatasetError(f"{listed_in} names no annotation: {printable(line, max_length=80)}")
        path = annotations / f"{line}.xml"
        if not path.exists() and _FLAG.search(line):
            path = annotations / f"{_FLAG.sub('', line)}.xml"
        paths.append(path)
    return list(dict.fromkeys(paths))


def read_voc(files: VocFiles, problems: AnnotationProblems) -> CocoRecords:
    """Read XML files as COCO records, image ids from 1 on.

    Args:
        files: as `find_voc` found them.
        problems: gets what was repaired and what is refused.

    Raises:
        DatasetError: if `labels.txt` cannot be read.
    """
    images: list[Record] = []
    annotations: list[Record] = []
    titles: list[str] = []
    name_of_image = _ImageNames(files)
    base = Path(os.path.commonpath([path.parent for path in files.annotations]))
    for path in tqdm(files.annotations, desc="labels", unit="file", leave=False, disable=None):
        title = path.relative_to(base).as_posix()
        root = _read(path, title, problems)
        if root is None:
            continue
        size = root.find("size") or Element("", 0)
        image: Record = {"id": len(images) + 1, "file_name": name_of_image(path, root)}
        image |= {key: size.text_of(key) for key in ("width", "height")}
        images.append(image)
        for element in root.find_all("object"):
            titles.append(f"{title}:{element.line}")
            annotations.append(_annotation(element, image, titles[-1], problems))
    names = _class_names(files, annotations, titles, problems)
    ids = {name: number for number, name in enumerate(names, start=1)}
    for number, annotation in enumerate(annotations, start=1):
        annotation |= {"id": number, "category_id": ids.get(annotation.pop("name"))}
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    return CocoRecords(images, annotations, categories, titles)


def _read(path: Path, title: str, problems: AnnotationProblems) -> Element | None:
    try:
        root = read_xml(path)
    except FileNotFoundError:
        problems.refuse("annotation files that are listed and not there", [title])
    except OSError as error:
        problems.refuse("annotation files that cannot be read", [f"{title}: {error.strerror}"])
    except ValueError as error:
        problems.refuse("annotation files that are no XML", [f"{title}: {error}"])
    else:
        if root.name == "annotation":
            return root
        problems.refuse("XML files that are no annotations of Pascal VOC", [title])
    return None


def _annotation(
    element: Element, image: Record, title: str, problems: AnnotationProblems
) -> Record:
    """Return an object as a COCO record, its class by name; title: its file and line."""
    record: Record = {"image_id": image["id"], "name": element.text_of("name") or ""}
    if element.text_of("difficult") == "1":
        record["iscrowd"] = 1
        problems.note("objects marked difficult, ignored in training and scoring", [title])
    box = element.find("bndbox")
    if box is None:
        return record
    try:
        x1, y1, x2, y2 = (float(box.text_of(side) or "") for side in _SIDES)
    except ValueError:
        return record | {"bbox": "no numbers"}  # is refused with its title
    if 0 <= min(x1, y1) < 1:
        problems.repair(
            "boxes from pixel 0, where Pascal VOC counts from 1, taken as from 1",
            [title],
        )
        x1, y1 = max(x1, 1.0), max(y1, 1.0)
    box_xywh = (x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1)
    return record | {"bbox": [round(value, DECIMALS) for value in box_xywh]}


def _class_names(
    files: VocFiles,
    annotations: Sequence[Record],
    titles: Sequence[str],
    problems: AnnotationProblems,
) -> list[str]:
    """Return the class names in order; objects of others are refused."""
    used = {annotation["name"] for annotation in annotations}
    if files.labels is None:
        return sorted(used - {""})
    names = read_lines(files.labels)
    unknown = used - set(names) - {""}
    problems.refuse(
        f"objects of classes that {LABELS} does not name",
        [
            f"{title}: {annotation['name']}"
            for title, annotation in zip(titles, annotations, strict=True)
            if annotation["name"] in unknown
        ],
    )
    return list(dict.fromkeys(names)) + sorted(unknown)


class _ImageNames:
    """Finds the image of an XML file: its `filename`, beside it or in the folder of images."""

    def __init__(self, files: VocFiles) -> None:
        self._files = files
        self._suffixes = sorted(image_suffixes())

    def __call__(self, path: Path, root: Element) -> str:
        """Return the name below the images folder, as `filename` has it where there is no file."""
        written = (root.text_of("filename") or "").replace("\\", "/").rpartition("/")[2]
        folder = self._files.images
        below = [folder]
        if path.parent.is_relative_to(folder):  # beside the XML file
            below.insert(0, path.parent)
        stems = (written, path.stem)
        for place in below:
            if written and (place / written).is_file():
                return (place / written).relative_to(folder).as_posix()
        for place in below:
            for stem in filter(None, stems):
                for suffix in self._suffixes:
                    if (place / f"{stem}{suffix}").is_file():
                        return (place / f"{stem}{suffix}").relative_to(folder).as_posix()
        return written or path.stem
