"""What a data set holds, counted: images, objects by class and size, empty images, crowds."""

from dataclasses import dataclass

import numpy as np

from dyhead_det.data.coco.dataset import CocoDataset

# Square roots of COCO's bounds of small and of medium objects, in pixels.
SMALL_SIDE, MEDIUM_SIDE = 32, 96


@dataclass(frozen=True, slots=True)
class DataStatistics:
    """Counts of one part of a data set; objects are annotations that are no crowd regions.

    num_empty: images without an object.
    objects_of_class: number of objects by class name, in label order.
    small, medium, large: number of objects by COCO's sizes, in pixels as annotated.
    most_objects: in one image.
    image_sizes: width and height of the image of least, middle and greatest area.
    """

    num_images: int
    num_empty: int
    num_objects: int
    num_crowds: int
    objects_of_class: dict[str, int]
    small: int
    medium: int
    large: int
    most_objects: int
    image_sizes: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


def count(dataset: CocoDataset) -> DataStatistics:
    """Count what is in a data set of at least one image."""
    is_object = ~dataset.is_crowd
    image_of_row = dataset.image_indices
    objects_of_image = np.bincount(image_of_row[is_object], minlength=len(dataset))
    of_class = np.bincount(dataset.labels[is_object], minlength=len(dataset.categories))
    areas = dataset.areas[is_object]
    num_small, num_up_to_medium = (
        int((areas < SMALL_SIDE**2).sum()),
        int((areas < MEDIUM_SIDE**2).sum()),
    )
    by_area = np.argsort(dataset.sizes_wh.prod(axis=1), kind="stable")
    least, middle, greatest = (
        dataset.size_wh(int(by_area[position])) for position in (0, len(by_area) // 2, -1)
    )
    return DataStatistics(
        num_images=len(dataset),
        num_empty=int((objects_of_image == 0).sum()),
        num_objects=int(is_object.sum()),
        num_crowds=int(dataset.is_crowd.sum()),
        objects_of_class=dict(zip(dataset.categories.names, of_class.tolist(), strict=True)),
        small=num_small,
        medium=num_up_to_medium - num_small,
        large=len(areas) - num_up_to_medium,
        most_objects=int(objects_of_image.max()),
        image_sizes=(least, middle, greatest),
    )


def fingerprint(dataset: CocoDataset) -> str:
    """Return in a few words what tells a data set from another: counts and a checksum."""
    num_annotations = len(dataset.labels)
    return f"{len(dataset)} images, {num_annotations} annotations, checksum {dataset.digest()[:12]}"
