"""What a person names on the command line -> image files."""

import glob
import itertools
import logging
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from dyhead_det.data.images import image_suffixes
from dyhead_det.data.stores.store import ImageFile
from dyhead_det.errors import DatasetError
from dyhead_det.escaping import listed, printable

logger = logging.getLogger(__name__)

_ANY_DEPTH = "**"


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image file.

    path: where it lies; in an archive or behind a URL where a data set says so, with an `image_id`.
    relative: its path below the folder or pattern that named it, which its pictures get too.
    image_id: what results call it; None for its position among all images, from 1.
    annotated_size: width and height that the boxes refer to; None for those of the image as shown.
    """

    path: ImageFile
    relative: Path
    image_id: int | None = None
    annotated_size: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """The `file_name` in results: the path, or that of the data set that gave the image."""
        return str(self.path) if self.image_id is None else self.relative.as_posix()


@dataclass(slots=True)
class _Listing:
    """The image files of one source, and what is beside them.

    images: in order.
    left_out: how many files are no images, by suffix.
    """

    images: list[ImageSource] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def find_images(sources: Sequence[str | Path], *, except_in: Path) -> list[ImageSource]:
    """List the image files of files, folders (with everything below) and glob patterns.

    A file named by itself is taken whatever its suffix; hidden files are not looked for. Linked
    folders are entered, each once. Files of other kinds are counted in one line of the log.

    Args:
        sources: what was asked for, in this order. A text file (.txt) is a list of image files, a
            path a line, of which none is looked for here: one that is missing costs no other.
        except_in: a folder to leave out, so that results never become input.

    Returns:
        Every file once, in the order of the sources and sorted within each.

    Raises:
        DatasetError: naming each source that does not exist, holds no image or is no file.
    """
    images: dict[Path, ImageSource] = {}
    problems: list[str] = []
    left_out: Counter[str] = Counter()
    results = os.path.realpath(except_in)  # Path.resolve refuses links that lead in a circle
    for source in sources:
        try:
            listing = _list_source(_expanded(source))
        except (OSError, ValueError) as error:  # such as a name that is too long or holds a NUL
            reason = error.strerror if isinstance(error, OSError) else error
            problems.append(f"{printable(source, max_length=100)} ({reason})")
            continue
        if not listing.images:
            problems.append(str(source))
        left_out += listing.left_out
        for image in listing.images:
            resolved = Path(str(image.path)).resolve()
            if not resolved.is_relative_to(results):
                images.setdefault(resolved, image)
    if problems or not images:
        raise DatasetError(
            f"no image found at {listed(problems or sources)}; name image files, folders or "
            f"patterns; in folders images end as Pillow's formats do (.jpg, .png, .webp, ...)"
        )
    if left_out:
        kinds = listed(suffix or "none" for suffix, _ in left_out.most_common())
        logger.info("left out as no images by their endings: %d (%s)", left_out.total(), kinds)
    return list(images.values())


def _expanded(source: str | Path) -> Path:
    """Return a path with the home folder for `~`, unless a file is called so.

    Raises:
        ValueError: if there is no name.
    """
    if not str(source):  # it would be the current folder
        msg = "an empty name"
        raise ValueError(msg)
    path = Path(source)
    try:
        return path if path.exists() else path.expanduser()
    except RuntimeError:  # there is no such user
        return path


def _list_source(source: Path) -> _Listing:
    """List the images of one source.

    Raises:
        OSError: if it is neither a file nor a folder, or cannot be read.
    """
    if source.is_dir():
        return _choose_images(_files_below(source), root=source)
    if source.exists():
        if not source.is_file():
            raise OSError(None, f"a {_kind(source)}, not a file")
        if source.suffix.lower() == ".txt":
            return _Listing([_listed_image(line) for line in _lines(source)])
        return _Listing([ImageSource(source, Path(source.name))])
    fixed = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), source.parts))
    return _choose_images(_matches(source), root=fixed)


def _lines(path: Path) -> list[str]:
    """Return the lines of a text file that are not empty; any bytes may be the name of a file."""
    text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    return [line for line in text.splitlines() if line.strip()]


def _listed_image(line: str) -> ImageSource:
    """Return an image of a list; its pictures keep its folders, where they lead below."""
    path = Path(line)
    leads_below = not path.is_absolute() and ".." not in path.parts
    return ImageSource(path, path if leads_below else Path(path.name))


def _kind(path: Path) -> str:
    if path.is_fifo():
        return "pipe"
    return "socket" if path.is_socket() else "device"


def _matches(pattern: Path) -> Iterator[Path]:
    """Yield the files that a pattern means; `**` is any number of folders.

    Python's own `**` differs from version to version and follows links in circles.
    """
    parts = pattern.parts
    if _ANY_DEPTH not in parts:
        yield from map(Path, glob.iglob(str(pattern)))  # noqa: PTH207 - it may be absolute
        return
    start = parts.index(_ANY_DEPTH)
    heads = glob.iglob(str(Path(*parts[:start]))) if start else ["."]  # noqa: PTH207
    for head in filter(Path.is_dir, map(Path, heads)):
        for path in _files_below(head):
            if _fits(path.relative_to(head).parts, parts[start:]):
                yield path


def _fits(names: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Return whether the parts of a path are those of a pattern."""
    # reached[i]: the names so far fit the first i parts.
    reached = [True] + [False] * len(pattern)
    for i, part in enumerate(pattern):
        reached[i + 1] = reached[i] and part == _ANY_DEPTH
    for name in names:
        before = reached
        reached = [False] * len(before)
        for i, part in enumerate(pattern):
            if part == _ANY_DEPTH:
                reached[i + 1] = before[i + 1] or before[i] or reached[i]
            else:
                reached[i + 1] = before[i] and fnmatch(name, part)
    return reached[-1]


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder; each folder is entered once, links to folders at the end."""
    entered: set[tuple[int, int]] = set()
    folders, links = [folder], deque[Path]()
    while folders or links:
        here = folders.pop() if folders else links.popleft()
        status = here.stat()
        if (status.st_dev, status.st_ino) in entered:
            continue
        entered.add((status.st_dev, status.st_ino))
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            logger.warning("%s: cannot be read (%s) and is left out", here, error.strerror)
            continue
        for entry in entries:
            if not _is_folder(entry):
                yield here / entry.name
            elif not entry.name.startswith("."):
                (links if entry.is_symlink() else folders).append(here / entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle, or into a folder that must not be read
        return False


def _choose_images(paths: Iterator[Path], *, root: Path) -> _Listing:
    listing = _Listing()
    for path in sorted(paths):
        relative = path.relative_to(root)
        # Not Path.is_dir and is_file, which raise where nobody may look.
        if any(part.startswith(".") for part in relative.parts) or os.path.isdir(path):  # noqa: PTH112
            continue
        if path.suffix.lower() in image_suffixes() and os.path.isfile(path):  # noqa: PTH113
            listing.images.append(ImageSource(path, relative))
        else:
            listing.left_out[path.suffix.lower()] += 1
    return listing
