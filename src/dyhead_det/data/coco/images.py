"""The images of a COCO file: ids, file names below the images folder, sizes."""

import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import numpy as np

from dyhead_det.data.coco import records as read
from dyhead_det.data.coco.identifiers import Identifiers
from dyhead_det.data.coco.problems import AnnotationProblems
from dyhead_det.data.coco.records import Flags, Integers, Record
from dyhead_det.data.images import image_size
from dyhead_det.data.stores.folder import composed
from dyhead_det.data.stores.store import ImageStore
from dyhead_det.errors import DatasetError

# Empty, absolute, with a drive, a folder, with a part "..", or nothing that a file can be called.
_NO_FILE_BELOW = re.compile(r"^$|^/|^[A-Za-z]:|/$|(^|/)\.\.(/|$)|\0")
# Strangers' values for messages: neither deep nor long.
_SHORT = reprlib.Repr()
_SHORT.maxstring = 100

_LONGEST_PATH = 4096  # bytes; no system opens a longer one

# Pixels. No picture is wider; a box at the far end of it still has a place in float32.
_LONGEST_SIDE = 2**20


@dataclass(frozen=True)
class ImageColumns:
    """N images in the order of the file, each once.

    ids: of each, and how annotations name it; file_names: below the images folder; sizes_wh: (N, 2)
    width and height in pixels, 0 where they cannot be known.
    """

    ids: Identifiers
    file_names: tuple[str, ...]
    sizes_wh: Integers
    is_complete: bool


def read_images(
    records: Sequence[Record], problems: AnnotationProblems, store: ImageStore
) -> ImageColumns:
    """Read the images, each once.

    Args:
        records: the section of the file.
        problems: gets what was repaired and what is refused.
        store: of the image files, for what the records do not say.
    """
    ids = Identifiers.of([record.get("id") for record in records])
    problems.refuse("images without an id, positions", np.flatnonzero(~ids.is_known))
    problems.repair("image ids that are text, numbered from 1 (in results too)", ids.texts())
    names = _file_names(records, ids, problems, store)
    problems.repair(
        "images that list classes looked for and not found (LVIS); classes that nobody looked for "
        "are taken as absent too, unlike in LVIS's own AP",
        [ids[row] for row, record in enumerate(records) if "neg_category_ids" in record],
    )
    sizes_wh = _sizes(records, ids, names, problems, store)

    is_first = _first_of_each(ids, names, sizes_wh, problems)
    file_names = tuple(names[row] for row in np.flatnonzero(is_first))
    _warn_of_shared_files(file_names, problems)
    return ImageColumns(
        ids.select(is_first), file_names, sizes_wh[is_first], bool(ids.is_known.all())
    )


def _file_names(
    records: Sequence[Record], ids: Identifiers, problems: AnnotationProblems, store: ImageStore
) -> list[str]:
    """Return the names as they are spelled in the folder, "" where there is none."""
    names = []
    for row, record in enumerate(records):
        written = record.get("file_name")
        name = relative_name(written)
        if name is not None and "\\" in str(written):
            problems.repair("file_name with backslashes, read as folders, image ids", [ids[row]])
        if name is None and (written is None or written == ""):
            name = _name_from_url(record.get("coco_url"), store)
            if name is not None:
                problems.repair("images without file_name, called as in coco_url", [name])
        if name is None:
            problems.refuse(
                "images whose file_name is no path inside the images folder",
                [f"image id {ids[row]}: {_SHORT.repr(written)}"],
            )
        names.append(store.spelled_as_there(name) if name else "")
    return names


def relative_name(written: object) -> str | None:
    """Return the name with forward slashes, None if it could lead out of the images folder."""
    if not isinstance(written, str):
        return None
    name = written.replace("\\", "/")
    if _NO_FILE_BELOW.search(name):
        return None
    try:
        return name if len(name.encode()) <= _LONGEST_PATH else None
    except UnicodeEncodeError:  # half of a surrogate pair
        return None


def _name_from_url(url: object, store: ImageStore) -> str | None:
    """Return folder and file of a `coco_url`, which is all that LVIS v1 tells of an image's name.

    Its images lie in the folders of COCO, ``train2017`` and ``val2017``; where the images folder
    is one of these itself, only the file counts.
    """
    if not isinstance(url, str):
        return None
    try:
        parts = unquote(urlsplit(url).path).split("/")
    except ValueError:
        return None
    below, alone = relative_name("/".join(parts[-2:]).lstrip("/")), relative_name(parts[-1])
    return alone if alone and alone in store and (below is None or below not in store) else below


def _sizes(
    records: Sequence[Record],
    ids: Identifiers,
    names: Sequence[str],
    problems: AnnotationProblems,
    store: ImageStore,
) -> Integers:
    """Return width and height of every image, (N, 2), 0 where they cannot be known."""
    columns = [
        read.integers([record.get(key) for record in records])[0] for key in ("width", "height")
    ]
    sizes_wh = np.stack(columns, axis=1)
    is_unknown = ((sizes_wh < 1) | (sizes_wh > _LONGEST_SIDE)).any(axis=1)
    for row in np.flatnonzero(is_unknown).tolist():
        name = names[row]
        title = f"image id {ids[row]}: {name}"
        measured = _measured(store, name) if name else None
        sizes_wh[row] = measured or (0, 0)
        if measured:
            problems.repair(
                "images without a usable width and height, taken from the image file", [title]
            )
        elif name:
            problems.refuse(
                "images without a usable width and height, and no file to take them from", [title]
            )
    return sizes_wh


def _measured(store: ImageStore, name: str) -> tuple[int, int] | None:
    try:
        return image_size(store.file(name))
    except DatasetError:
        return None


def _first_of_each(
    ids: Identifiers, names: Sequence[str], sizes_wh: Integers, problems: AnnotationProblems
) -> Flags:
    """Return which records are the first with their id; others must say the same."""
    known_rows = np.flatnonzero(ids.is_known)
    _, first, group = np.unique(ids.numbers[known_rows], return_index=True, return_inverse=True)
    first_of_each = np.arange(len(names))
    first_of_each[known_rows] = known_rows[first[group]]
    is_repeated = first_of_each != np.arange(len(names))
    is_same = (sizes_wh == sizes_wh[first_of_each]).all(axis=1)
    for row in np.flatnonzero(is_repeated & is_same).tolist():
        is_same[row] = names[row] == names[first_of_each[row]]
    for row in np.flatnonzero(is_repeated).tolist():
        if is_same[row]:
            problems.repair("images listed twice, taken once, image ids", [ids[row]])
        else:
            problems.refuse("image ids used for different images", [ids[row]])
    is_first: Flags = ids.is_known & ~is_repeated
    return is_first


def _warn_of_shared_files(file_names: Sequence[str], problems: AnnotationProblems) -> None:
    seen: set[str] = set()
    for name in map(composed, file_names):
        if name and name in seen:
            problems.repair("image files listed again under another id, all of them kept", [name])
        seen.add(name)
