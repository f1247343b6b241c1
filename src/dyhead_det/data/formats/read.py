"""Annotations of any format -> a checked and repaired data set, in memory.

YOLO and Pascal VOC become the records that a COCO file holds and go the same way from there, so
that all that `data.coco` repairs, refuses and reports holds for them too; messages name file and
line where COCO has ids.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from dyhead_det.data.coco.dataset import (
    CocoDataset,
    build_dataset,
    no_garbage_collection,
    read_coco,
)
from dyhead_det.data.coco.problems import AnnotationProblems
from dyhead_det.data.formats.source import FoundSource, Part, Source, find_source
from dyhead_det.data.formats.voc import find_voc, read_voc
from dyhead_det.data.formats.yolo import read_yolo
from dyhead_det.data.formats.yolo_config import read_yolo_config
from dyhead_det.data.stores.locate import folder_path
from dyhead_det.errors import DatasetError


class ReadAnnotations(NamedTuple):
    """A data set, what was wrong with its annotations, and where and how they are written.

    titles: file and line of the annotation of each id from 1 on; None where ids say it: COCO.
    """

    dataset: CocoDataset
    problems: AnnotationProblems
    source: FoundSource
    titles: Sequence[str] | None = None


def read_annotations(
    source: Source, *, part: Part = "train", broken_images: Literal["error", "skip"] = "error"
) -> ReadAnnotations:
    """Read annotations in any format, and leave their problems to the caller.

    Whether the image files are there is not asked, but for YOLO, whose boxes need their sizes.

    Args:
        source: a file or a folder, its images, format and split, all but the first optional:
            ``Source(Path("mydata"))`` looks for what is there.
        part: what the data set is used for, for messages; and the split where none is named.
        broken_images: what an image without a readable size is in YOLO: refused, or left out.

    Returns:
        The data set without what was refused; the problems, of which `problems.conclude()` makes
        one warning or one error; where the annotations were found, and what they are called.

    Raises:
        DatasetError: if there are no annotations that could be read.
    """
    found = find_source(source, part=part)
    try:
        with no_garbage_collection():
            return _read(found, part=part, broken_images=broken_images)
    except OSError as error:  # such as names that are too long
        raise DatasetError(f"{error.filename or found.annotations}: {error.strerror}") from error


def load_annotations(
    source: Source, *, part: Part = "train", broken_images: Literal["error", "skip"] = "error"
) -> CocoDataset:
    """Read annotations in any format, repair what can be repaired, and say so.

    Arguments as in `read_annotations`.

    Raises:
        DatasetError: if nothing can be read, or with all records that cannot be repaired.
    """
    read = read_annotations(source, part=part, broken_images=broken_images)
    read.problems.conclude()
    return read.dataset


def _read(
    found: FoundSource, *, part: Part, broken_images: Literal["error", "skip"]
) -> ReadAnnotations:
    if found.format == "coco":
        problems = AnnotationProblems(found.annotations)
        images = found.images or found.annotations.parent
        return ReadAnnotations(read_coco(images, problems, split=part), problems, found)
    if found.format == "yolo":
        if found.images is not None:
            raise DatasetError(
                f"{found.annotations} itself says where its images are; leave out "
                f"data.{part}.images"
            )
        config = read_yolo_config(found.annotations)
        problems = AnnotationProblems(found.annotations)
        records, images = read_yolo(config, found.split, problems, broken_images=broken_images)
    else:
        folder = None if found.images is None else folder_path(found.images)
        if folder is None and found.images is not None:
            raise DatasetError(
                f"{found.images}: images in archives or behind a URL go with COCO annotations; "
                "write them by dyhead-det data convert --to coco"
            )
        files = find_voc(found.annotations, split=found.split, images=folder)
        problems, images = AnnotationProblems(files.named_by), files.images
        records = read_voc(files, problems)
    for section in ("images", "categories"):
        if not getattr(records, section) and not problems.refused:
            problems.refuse(f"there are no {section}", [found.annotations])
    dataset = build_dataset(records, images, problems, split=part)
    return ReadAnnotations(dataset, problems, found, records.titles)
