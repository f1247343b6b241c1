"""`data check`: all that training would refuse, repair or end on, found before it costs time."""

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from dyhead_det.data.build_datasets import REQUIREMENTS
from dyhead_det.data.coco.dataset import CocoDataset, missing_images, read_coco
from dyhead_det.data.coco.problems import AnnotationProblems, summary
from dyhead_det.data.images import WrongSizeError, image_size, read_image, stored_size
from dyhead_det.data.statistics import count
from dyhead_det.errors import DatasetError
from dyhead_det.escaping import listed

# More threads than this only wait for each other, or for the disk.
_MOST_THREADS = 8


@dataclass(frozen=True)
class DatasetCheck:
    """The result of a check of an annotation file and its images.

    Attributes:
        dataset: what can be used of it.
        problems: by kind, those of the images included.
        unmet: why training would not start although every record can be read.
        num_opened: images that were opened.
    """

    dataset: CocoDataset
    problems: AnnotationProblems
    unmet: tuple[str, ...]
    num_opened: int

    @property
    def is_usable(self) -> bool:
        """Whether training would take the data set."""
        return not self.problems.refused and not self.unmet

    def text(self) -> str:
        """Return one line for every kind of problem, the worst first, and what there is."""
        lines = [f"error: {line}" for line in (*summary(self.problems.refused), *self.unmet)]
        lines += [f"warning: {line}" for line in summary(self.problems.repaired)]
        lines += [f"note: {line}" for line in summary(self.problems.noted)]
        dataset = self.dataset
        return "\n".join(
            [
                *lines,
                f"{dataset.annotations_path}: {len(dataset)} images ({self.num_opened} opened), "
                f"{len(dataset.labels)} boxes, {int(dataset.is_crowd.sum())} of them crowds, "
                f"{len(dataset.categories)} categories: "
                f"{listed(dataset.categories.names, max_named=100)}",
            ]
        )

    def require_usable(self) -> None:
        """Refuse what training would refuse.

        Raises:
            DatasetError: with the number of reasons, which `text` lists.
        """
        if not self.is_usable:
            num_reasons = len(self.problems.refused) + len(self.unmet)
            raise DatasetError(
                f"{self.problems.annotations_path} cannot be trained on as it is; correct what is "
                f"called an error above ({num_reasons} in all)"
            )


@dataclass(frozen=True)
class _OpenedImage:
    """What opening one image showed.

    error: why it cannot be used; flaws: what is wrong with it all the same; orientation: how it is
    read where metadata swap its sides.
    """

    error: DatasetError | None = None
    flaws: tuple[str, ...] = ()
    orientation: Literal["as shown", "as stored"] | None = None


def check_dataset(annotations: Path, images: Path, *, open_images: bool = True) -> DatasetCheck:
    """Read a data set as training does, and every image in it.

    Args:
        annotations: a COCO annotation file.
        images: the folder of its images.
        open_images: read the images too, not only look whether they are there.

    Raises:
        DatasetError: if the file is no COCO annotation file.
    """
    problems = AnnotationProblems(annotations)
    dataset = read_coco(images, problems, split="train")
    unmet = []
    for requirement in REQUIREMENTS:
        try:
            requirement(dataset)
        except DatasetError as error:
            unmet.append(str(error))
    if len(dataset):
        objects = count(dataset).objects_of_class
        problems.note("classes without an object", [name for name, n in objects.items() if not n])
    num_opened = _open_all(dataset, problems) if open_images else 0
    return DatasetCheck(dataset, problems, tuple(unmet), num_opened)


def _open_all(dataset: CocoDataset, problems: AnnotationProblems) -> int:
    """Open the images that are there, several at once, and return how many that are."""
    missing = {"", *missing_images(dataset)}  # "" was no name of a file, and refused as such
    indices = [index for index, name in enumerate(dataset.file_names) if name not in missing]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # here and not in threads, which share the filters
        for index, opened in zip(indices, _opened(dataset, indices), strict=True):
            _add(opened, dataset.path(index), dataset.file_names[index], problems)
    return len(indices)


def _opened(dataset: CocoDataset, indices: list[int]) -> Iterator[_OpenedImage]:
    pool = ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1))
    try:
        images = pool.map(lambda i: _open(dataset.path(i), dataset.size_wh(i)), indices)
        yield from tqdm(
            images, total=len(indices), desc="check", unit="image", leave=False, disable=None
        )
    finally:
        pool.shutdown(cancel_futures=True)


def _open(path: Path, annotated_size: tuple[int, int]) -> _OpenedImage:
    flaws: list[str] = []
    try:
        # JPEG files are read to their end at an eighth of their size.
        read_image(path, annotated_size=annotated_size, resized_to=(1, 1), warn=flaws.append)
        shown, stored = image_size(path), stored_size(path)
    except DatasetError as error:
        return _OpenedImage(error=error)
    if shown == stored:
        return _OpenedImage(flaws=tuple(flaws))
    is_shown = annotated_size == shown
    return _OpenedImage(flaws=tuple(flaws), orientation="as shown" if is_shown else "as stored")


def _add(opened: _OpenedImage, path: Path, name: str, problems: AnnotationProblems) -> None:
    if isinstance(opened.error, WrongSizeError):
        problems.refuse("images of another size than annotated", [f"{name}: {opened.error.sizes}"])
    elif opened.error is not None:
        reason = str(opened.error).removeprefix(f"{path} ")
        problems.refuse("images that cannot be read", [f"{name}: {reason}"])
    if opened.flaws:
        problems.repair("images that lack their end marker, read all the same", [name])
    if opened.orientation:
        kind = f"images whose EXIF orientation swaps the sides, read {opened.orientation}"
        problems.note(kind, [name])
