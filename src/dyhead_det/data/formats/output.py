"""A data set about to be written: its classes, and its images with their new names."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.data.coco.alignment import relabeled
from dyhead_det.data.coco.dataset import CocoDataset
from dyhead_det.data.stores.store import ImageFile
from dyhead_det.errors import DatasetError

# What lists of one name a line, and other systems, cannot have in a name; blanks at its ends too.
_AWKWARD = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028\u2029"*:<>?|\\]|^\s|\s$')


class OutputObject(NamedTuple):
    """An object: label, box in pixels, area in square pixels, and whether it is a crowd."""

    label: int
    box_xywh: tuple[float, float, float, float]
    area: float
    is_crowd: bool


@dataclass(frozen=True, slots=True)
class OutputImage:
    """An image of a data set, and its name below the new folder of images."""

    dataset: CocoDataset
    index: int
    name: str

    @property
    def file(self) -> ImageFile:
        """The image file that there is."""
        return self.dataset.image_file(self.index)

    @property
    def stem(self) -> str:
        """The new name without its suffix."""
        return str(PurePosixPath(self.name).with_suffix(""))

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.dataset.size_wh(self.index)

    @property
    def objects(self) -> list[OutputObject]:
        """The objects, in the order of the data set."""
        rows = slice(*self.dataset.offsets[self.index : self.index + 2].tolist())
        columns = (self.dataset.labels, self.dataset.boxes_xywh, self.dataset.areas)
        values = zip(*(column[rows].tolist() for column in columns), strict=True)
        crowds = self.dataset.is_crowd[rows].tolist()
        return [
            OutputObject(label, tuple(box), area, is_crowd)
            for (label, box, area), is_crowd in zip(values, crowds, strict=True)
        ]


@dataclass(frozen=True)
class Output:
    """What is written: classes in label order, and by part images whose objects are labeled so."""

    categories: CategoryMap
    parts: dict[str, list[OutputImage]]

    @classmethod
    def of(cls, parts: Mapping[str, Sequence[CocoDataset]], *, is_flat: bool) -> "Output":
        """Bring data sets together that may differ in classes, and share names of images.

        Args:
            parts: data sets by part, which become one.
            is_flat: all images, of all parts too, will lie in one folder.

        Raises:
            DatasetError: if there is no image.
        """
        datasets = [dataset for several in parts.values() for dataset in several]
        if not any(len(dataset) for dataset in datasets):
            raise DatasetError("there is no image to write")
        categories = _union([dataset.categories for dataset in datasets])
        images: dict[str, list[OutputImage]] = {}
        taken: set[str] = set()
        for part, several in parts.items():
            if not is_flat:
                taken = set()
            images[part] = [
                OutputImage(dataset, index, _new_name(name, part, taken, is_flat=is_flat))
                for dataset in (relabeled(dataset, categories) for dataset in several)
                for index, name in enumerate(dataset.file_names)
            ]
        return cls(categories, images)

    def with_names_below(self, folder: Path) -> "Output":
        """Return the same with the names that the files, all of the disk, have below a folder."""
        return replace(
            self,
            parts={
                part: [
                    replace(image, name=image.file.absolute().relative_to(folder).as_posix())
                    for image in images
                    if isinstance(image.file, Path)
                ]
                for part, images in self.parts.items()
            },
        )

    @property
    def num_images(self) -> int:
        """Images of all parts."""
        return sum(map(len, self.parts.values()))


def _new_name(name: str, part: str, taken: set[str], *, is_flat: bool) -> str:
    """Return a name whose stem no other image has, since label files are called by it.

    It is the old one where that is free and can be written anywhere; `taken` grows by the stem.
    """
    steps = [_AWKWARD.sub("_", step) or "_" for step in name.split("/")]
    path = PurePosixPath("_".join(steps) if is_flat else "/".join(steps))
    stem, suffix = str(path.with_suffix("")), path.suffix
    candidates = [stem, f"{part}_{stem}"] if is_flat else [stem]
    candidates.append(f"{stem}_{suffix[1:]}")
    new = next((c for c in candidates if c.casefold() not in taken), None)
    number = 2
    while new is None:
        candidate = f"{stem}_{number}"
        new = candidate if candidate.casefold() not in taken else None
        number += 1
    taken.add(new.casefold())
    return f"{new}{suffix}"


def _union(maps: Sequence[CategoryMap]) -> CategoryMap:
    """Return the classes of several data sets: those of the first one, then what others add.

    Their ids stay where they tell the order, which is how COCO files are read; else they are
    counted from 1.
    """
    union = {category.name: category for own in reversed(maps) for category in own}
    names = dict.fromkeys(category.name for own in maps for category in own)
    ids = [union[name].dataset_id for name in names]
    if any(later <= earlier for earlier, later in pairwise(ids)):
        ids = list(range(1, len(ids) + 1))
    return CategoryMap(tuple(map(Category, names, ids)))
