"""Every image of a data set opened, several at once: what is wrong with it, and its fingerprint."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from dyhead_det.data.coco.dataset import CocoDataset
from dyhead_det.data.coco.problems import AnnotationProblems
from dyhead_det.data.images import WrongSizeError, held, image_size, read_image, stored_size
from dyhead_det.data.in_threads import map_in_threads
from dyhead_det.data.stores.store import ImageFile
from dyhead_det.errors import DatasetError
from dyhead_det.inspection.same_pictures import Fingerprint, fingerprint

# Pixels: JPEG files are read to their end at an eighth of their size where that is enough.
_ENOUGH = (64, 64)


@dataclass(frozen=True)
class OpenedImage:
    """What opening one image showed.

    error: why it cannot be used; flaws: what is wrong with it all the same; orientation: how it is
    read where metadata swap its sides; fingerprint: None where it cannot be read.
    """

    error: DatasetError | None = None
    flaws: tuple[str, ...] = ()
    orientation: Literal["as shown", "as stored"] | None = None
    fingerprint: Fingerprint | None = None


def open_images(dataset: CocoDataset, indices: list[int]) -> Iterator[OpenedImage]:
    """Yield what opening each of some images shows, in their order, with a progress bar."""
    return map_in_threads(
        lambda i: _open(dataset.image_file(i), dataset.size_wh(i)),
        indices,
        title=f"check {dataset.split}",
    )


def _open(file: ImageFile, annotated_size: tuple[int, int]) -> OpenedImage:
    flaws: list[str] = []
    try:
        file = held(file)
        image = read_image(
            file, annotated_size=annotated_size, resized_to=_ENOUGH, warn=flaws.append
        )
        shown, stored = image_size(file), stored_size(file)
        own = fingerprint(file, image)
    except DatasetError as error:
        return OpenedImage(error=error)
    if shown == stored:
        return OpenedImage(flaws=tuple(flaws), fingerprint=own)
    how: Literal["as shown", "as stored"] = "as shown" if annotated_size == shown else "as stored"
    return OpenedImage(flaws=tuple(flaws), orientation=how, fingerprint=own)


def report_opened(
    opened: OpenedImage,
    file: ImageFile,
    name: str,
    problems: AnnotationProblems,
    *,
    skips_broken: bool,
) -> None:
    """Add what is wrong with an image to the problems of its data set."""
    report = problems.repair if skips_broken else problems.refuse
    if isinstance(opened.error, WrongSizeError):
        report("images of another size than annotated", [f"{name}: {opened.error.sizes}"])
    elif opened.error is not None:
        reason = str(opened.error).removeprefix(f"{file} ")
        report("images that cannot be read", [f"{name}: {reason}"])
    if opened.flaws:
        problems.repair("images that lack their end marker, read all the same", [name])
    if opened.orientation:
        kind = f"images whose EXIF orientation swaps the sides, read {opened.orientation}"
        problems.note(kind, [name])
