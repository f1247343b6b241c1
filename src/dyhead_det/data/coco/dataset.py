"""A COCO-format data set as compact columns: read, checked and repaired once.

What is found in the world and what becomes of it. *Repairs* are counted in one warning;
everything *refused* is listed in one `DatasetError` with the ids of the records.

| found | becomes |
|---|---|
| box partly outside its image | clipped (counted when it reaches out by more than half a pixel) |
| box outside, of zero or negative size, with NaN or infinity | dropped, in evaluation too |
| no `bbox`, but a polygon or a run-length mask of its image | the box around it |
| neither `bbox` nor `segmentation` | dropped |
| malformed `bbox`, `segmentation` or `iscrowd` | refused |
| most boxes within 0..1 | refused; with only some of them, a warning |
| most boxes look like two corners (as sizes, they reach out) | refused; a warning if not sure |
| annotation written twice: same image, category, box | taken once, as ultralytics does |
| no `iscrowd`, no `area`, no `info` | 0, the area of the box, nothing: no news |
| an `area` that is not a positive number | the area of the box |
| annotation id missing, twice, or below 1 | all annotations are renumbered from 1 |
| annotation of an unknown image or category | refused |
| image or category ids that are text | numbered from 1 in the order of the file |
| image twice, with the same content | taken once |
| image id twice, with different content | refused |
| `file_name` shared by several image ids | kept, with a warning |
| `file_name` with backslashes | read as folders |
| `file_name` in another Unicode form than on the disk | found |
| no `file_name`, but a `coco_url` (LVIS v1) | the last folder and the file of that |
| `neg_category_ids` (LVIS) | not used: what nobody looked for is absent, with a warning |
| `file_name` absolute, with `..`, empty or missing | refused |
| no `width` or `height`, or one that no image has | read from the image file, else refused |
| category twice, with the same name | taken once |
| category without a box, supercategory of all others (Roboflow's root) | left out |
| category id with two names, name with two ids | refused |
| name with half of a surrogate pair | refused |
| no categories, no images | refused |

Crowd regions stay in the data set and in the ground truth; they are never training targets.
"""

import gc
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dyhead_det.contracts import CategoryMap, Target
from dyhead_det.data.coco.annotations import read_annotations
from dyhead_det.data.coco.categories import read_categories
from dyhead_det.data.coco.file import CocoRecords, read_records
from dyhead_det.data.coco.images import read_images
from dyhead_det.data.coco.packed_text import PackedText
from dyhead_det.data.coco.problems import AnnotationProblems, shorten
from dyhead_det.data.coco.records import Flags, Floats, Integers
from dyhead_det.data.stores.folder import composed
from dyhead_det.data.stores.locate import open_store
from dyhead_det.data.stores.store import ImageFile, ImageLocation, ImageStore
from dyhead_det.errors import DatasetError


@dataclass(frozen=True, eq=False)
class CocoDataset:
    """Images and their annotations as numpy columns, which worker processes share, not copy.

    The annotations are sorted by image; those of image i are rows ``offsets[i]:offsets[i + 1]``.

    Attributes:
        split: the part of the data set that it is, as the configuration calls it.
        annotations_path: the file that was read.
        images: where the image files lie.
        categories: the classes, in the order of the data set's ids.
        image_ids: (N,) the data set's own ids.
        file_names: (N,) of the images, with forward slashes.
        sizes_wh: (N, 2) width and height in pixels.
        offsets: (N + 1,) first annotation of each image.
        boxes_xywh: (M, 4) inside their image, to the last digit as in the file unless clipped.
        labels: (M,) 0..K-1.
        areas: (M,) in square pixels.
        is_crowd: (M,) regions that hold many objects.
        annotation_ids: (M,) unique, from 1 on.
    """

    split: str
    annotations_path: Path
    images: ImageStore
    categories: CategoryMap
    image_ids: Integers
    file_names: PackedText
    sizes_wh: Integers
    offsets: Integers
    boxes_xywh: Floats
    labels: Integers
    areas: Floats
    is_crowd: Flags
    annotation_ids: Integers

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.image_ids)

    @property
    def boxes(self) -> NDArray[np.float32]:
        """All boxes as ``xyxy`` pixels, (M, 4) float32, crowds included."""
        return _xyxy(self.boxes_xywh)

    def image_file(self, index: int) -> ImageFile:
        """Return the file of image `index`; errors as `ImageStore.file`."""
        return self.images.file(self.file_names[index])

    def size_wh(self, index: int) -> tuple[int, int]:
        """Return width and height that the boxes of image `index` refer to."""
        width, height = self.sizes_wh[index].tolist()
        return width, height

    def target(self, index: int) -> Target:
        """Return what a detector shall find in image `index`: its annotations without crowds."""
        rows = np.arange(self.offsets[index], self.offsets[index + 1])
        rows = rows[~self.is_crowd[rows]]
        return {
            "boxes": torch.from_numpy(_xyxy(self.boxes_xywh[rows])),
            "labels": torch.from_numpy(self.labels[rows]),
            "image_id": int(self.image_ids[index]),
        }

    def digest(self) -> str:
        """Return a checksum of all that training takes from the data set, on any disk."""
        names = "\0".join([*self.categories.names, *map(composed, self.file_names)])
        checksum = hashlib.sha256(names.encode())
        for column in (self.sizes_wh, self.offsets, self.boxes_xywh, self.labels, self.is_crowd):
            checksum.update(np.ascontiguousarray(column).data)
        return checksum.hexdigest()

    @property
    def image_indices(self) -> Integers:
        """The position of each annotation's image, (M,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def without_empty_images(self) -> "CocoDataset":
        """Return only the images that have something to find: crowds alone do not count."""
        image_of_row = self.image_indices
        num_objects = np.bincount(image_of_row[~self.is_crowd], minlength=len(self))
        return self.select_images(num_objects > 0)

    def select_images(self, is_kept: Flags) -> "CocoDataset":
        """Return some of the images, (N,), with all of their annotations."""
        image_of_row = self.image_indices
        return replace(
            self.select_annotations(is_kept[image_of_row]),
            image_ids=self.image_ids[is_kept],
            file_names=self.file_names.select(is_kept),
            sizes_wh=self.sizes_wh[is_kept],
            offsets=_offsets(np.diff(self.offsets)[is_kept]),
        )

    def select_annotations(self, flags: Flags) -> "CocoDataset":
        """Return all images with some of their annotations, (M,)."""
        image_of_row = self.image_indices
        return replace(
            self,
            offsets=_offsets(np.bincount(image_of_row[flags], minlength=len(self))),
            boxes_xywh=self.boxes_xywh[flags],
            labels=self.labels[flags],
            areas=self.areas[flags],
            is_crowd=self.is_crowd[flags],
            annotation_ids=self.annotation_ids[flags],
        )

    def ground_truth(self) -> dict[str, Any]:
        """Return the whole data set as COCO JSON that pycocotools takes, crowds included."""
        image_id_of_row = np.repeat(self.image_ids, np.diff(self.offsets))
        dataset_ids = np.array([category.dataset_id for category in self.categories])
        annotations = zip(
            self.annotation_ids.tolist(),
            image_id_of_row.tolist(),
            dataset_ids[self.labels].tolist(),
            self.boxes_xywh.tolist(),
            self.areas.tolist(),
            self.is_crowd.astype(np.int64).tolist(),
            strict=True,
        )
        keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
        images = zip(
            self.image_ids.tolist(),
            self.file_names,
            *self.sizes_wh.T.tolist(),
            strict=True,
        )
        return {
            "info": {},
            "licenses": [],
            "images": [
                dict(zip(("id", "file_name", "width", "height"), image, strict=True))
                for image in images
            ],
            "annotations": [dict(zip(keys, annotation, strict=True)) for annotation in annotations],
            "categories": [
                {"id": category.dataset_id, "name": category.name} for category in self.categories
            ],
        }


def load_coco(annotations: Path, images: ImageLocation, *, split: str) -> CocoDataset:
    """Read a COCO annotation file, repair what can be repaired, and say so.

    Args:
        annotations: the JSON file.
        images: where its file names lead to, as `open_store` takes it.
        split: the part of the data set that this is, for messages: ``train`` or ``val``.

    Raises:
        DatasetError: if the file cannot be read, or with all records that cannot be repaired.
    """
    problems = AnnotationProblems(annotations)
    dataset = read_coco(images, problems, split=split)
    problems.conclude()
    return dataset


def read_coco(images: ImageLocation, problems: AnnotationProblems, *, split: str) -> CocoDataset:
    """Read an annotation file as `load_coco` does, and leave its problems to the caller.

    Args:
        images: where its file names lead to, as `open_store` takes it.
        problems: names the file, and gets what was repaired and refused; what was refused is not
            in the data set.
        split: the part of the data set that this is: ``train`` or ``val``.

    Raises:
        DatasetError: if the file is no COCO annotation file.
    """
    with no_garbage_collection():
        records = read_records(problems.annotations_path, problems, split=split)
        return build_dataset(records, images, problems, split=split)


def build_dataset(
    records: CocoRecords, images: ImageLocation, problems: AnnotationProblems, *, split: str
) -> CocoDataset:
    """Check and repair records, whatever format they come from; arguments as in `read_coco`."""
    category_ids = [record.get("category_id") for record in records.annotations]
    categories = read_categories(records.categories, category_ids, problems)
    store = open_store(images)
    image_columns = read_images(records.images, problems, store)
    columns = read_annotations(
        records.annotations, image_columns, categories, problems, titles=records.titles
    )

    order = np.argsort(columns.image_indices, kind="stable")
    counts = np.bincount(columns.image_indices, minlength=len(image_columns.file_names))
    return CocoDataset(
        split=split,
        annotations_path=problems.annotations_path,
        images=store,
        categories=categories.categories,
        image_ids=image_columns.ids.numbers,
        file_names=PackedText.pack(image_columns.file_names),
        sizes_wh=image_columns.sizes_wh,
        offsets=_offsets(counts),
        boxes_xywh=columns.boxes_xywh[order],
        labels=columns.labels[order],
        areas=columns.areas[order],
        is_crowd=columns.is_crowd[order],
        annotation_ids=columns.ids[order],
    )


def missing_images(dataset: CocoDataset) -> list[str]:
    """Return the file names that the annotations list and no image has.

    Raises:
        DatasetError: if the folder is not there, or a name stands for several files.
    """
    return dataset.images.missing(dataset.file_names)


def require_images(dataset: CocoDataset) -> None:
    """Make sure that every image file is there.

    Raises:
        DatasetError: with the first missing names and how many there are.
    """
    key = f"data.{dataset.split}.images" + " (eval: --images)" * (dataset.split == "val")
    try:
        missing = missing_images(dataset)
    except DatasetError as error:
        raise DatasetError(f"{error}; check {key}") from error
    if not missing:
        return
    in_another_case = {name: dataset.images.in_another_case(name) for name in missing}
    renamed = [f"{name} is {there}" for name, there in in_another_case.items() if there]
    in_case = (
        f" ({len(renamed)} differ in upper and lower case only: {shorten(renamed, len(renamed))})"
    )
    raise DatasetError(
        f"{len(missing)} of the {len(dataset)} images that {dataset.annotations_path} lists "
        f"are not in {dataset.images}: {shorten(missing, len(missing))}"
        f"{in_case if renamed else ''}; check {key}, or set data.broken_images "
        "to skip (eval: --broken-images skip)"
    )


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keep Python from searching millions of new dicts for cycles: two thirds of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _offsets(counts: NDArray[np.integer[Any]]) -> Integers:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _xyxy(boxes_xywh: Floats) -> NDArray[np.float32]:
    """Return boxes as ``xyxy``, (M, 4) float32."""
    top_left, size = boxes_xywh[:, :2], boxes_xywh[:, 2:]
    return np.concatenate([top_left, top_left + size], axis=1).astype(np.float32)
