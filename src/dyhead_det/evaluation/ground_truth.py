"""Ground truth of an evaluation: the images that were read, and what limits the numbers."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypedDict

from dyhead_det.errors import DatasetError
from dyhead_det.escaping import listed


class CocoResult(TypedDict):
    """One line of COCO results: `bbox` is x, y, width, height; ids are the data set's own."""

    image_id: int
    category_id: int
    bbox: list[float]
    score: float


def without_unread_images(
    ground_truth: Mapping[str, Any], image_ids: Collection[int]
) -> dict[str, Any]:
    """Return the ground truth of the images that a detector has seen.

    Objects of an image that cannot be read are not missed objects: nobody could find them.

    Args:
        ground_truth: a COCO dictionary.
        image_ids: the images that were read.

    Raises:
        DatasetError: where no image was read, or those that were have no annotated object.
    """
    was_read = frozenset(image_ids)
    part = {
        **ground_truth,
        "images": [image for image in ground_truth["images"] if image["id"] in was_read],
        "annotations": [
            annotation
            for annotation in ground_truth["annotations"]
            if annotation["image_id"] in was_read
        ],
    }
    num_images = len(ground_truth["images"])
    if not part["images"]:
        raise DatasetError(
            f"none of the {num_images} images to evaluate on can be read; check the images folder"
        )
    if not has_objects(part):
        raise DatasetError(
            f"nothing to evaluate against: only {len(part['images'])} of {num_images} images can "
            "be read, and these have no annotated object; repair the others"
        )
    return part


def has_objects(ground_truth: Mapping[str, Any]) -> bool:
    """Return whether there is an object to find; crowd regions are none."""
    return not all(annotation.get("iscrowd") for annotation in ground_truth["annotations"])


def require_known(ground_truth: Mapping[str, Any], detections: Sequence[CocoResult]) -> None:
    """Make sure that detections belong to the ground truth.

    The evaluators pass over the others in silence, and the numbers are those of the rest.

    Raises:
        DatasetError: naming images and categories that the ground truth does not have.
    """
    problems = []
    for key, section in (("image_id", "images"), ("category_id", "categories")):
        known = {entry["id"] for entry in ground_truth[section]}
        unknown = Counter(
            found
            for detection in detections
            if (found := detection[key]) not in known  # type: ignore[literal-required]
        )
        if unknown:
            problems.append(
                f"{unknown.total()} of {len(detections)} detections are of {section} that the "
                f"ground truth does not have ({key} {listed(unknown)})"
            )
    if problems:
        raise DatasetError(
            f"{'; '.join(problems)}; give the annotations that the detections were made for"
        )


def crowding_notes(
    ground_truth: Mapping[str, Any], *, max_detections: int, detections_per_image: int | None
) -> list[str]:
    """Describe where images hold more objects than can be found, so that no detector reaches AP 1.

    Args:
        ground_truth: a COCO dictionary.
        max_detections: of an image and class that AP counts.
        detections_per_image: the most that the detector returns, None where that is unknown.
    """
    objects = [
        (annotation["image_id"], annotation["category_id"])
        for annotation in ground_truth["annotations"]
        if not annotation.get("iscrowd")
    ]
    of_image_and_class = Counter(objects)
    of_image = Counter(image_id for image_id, _ in objects)
    notes = []
    crowded = {key: n for key, n in of_image_and_class.items() if n > max_detections}
    if crowded:
        notes.append(
            f"images that hold more than {max_detections} objects of a class: "
            f"{len({image_id for image_id, _ in crowded})}, with up to {max(crowded.values())}; AP "
            f"counts the best {max_detections} detections of an image and class: raise "
            "eval.max_detections"
        )
    if detections_per_image is not None:
        full = [n for n in of_image.values() if n > detections_per_image]
        if full:
            notes.append(
                f"images that hold more objects than the detector returns: {len(full)}, with up to "
                f"{max(full)}; raise its detections_per_img, which is {detections_per_image}"
            )
    return notes
