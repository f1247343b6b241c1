"""What a person names on the command line -> image files, and where their pictures go."""

import glob
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dyhead_det.data.images import IMAGE_SUFFIXES
from dyhead_det.errors import DatasetError


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image file, and its path below the folder or pattern that named it."""

    path: Path
    relative: Path


def find_images(sources: Sequence[str | Path], *, except_in: Path) -> list[ImageSource]:
    """List the image files of files, folders (with everything below) and glob patterns.

    A file named by itself is taken whatever its suffix; hidden files are not looked for.

    Args:
        sources: what was asked for, in this order.
        except_in: a folder to leave out, so that results never become input.

    Returns:
        Every file once, in the order of the sources and sorted within each.

    Raises:
        DatasetError: naming each source that does not exist or holds no image.
    """
    found: dict[Path, ImageSource] = {}
    empty: list[str] = []
    left_out = except_in.resolve()
    for source in sources:
        images = list(_images_of(Path(source).expanduser()))
        if not images:
            empty.append(str(source))
        for image in images:
            resolved = image.path.resolve()
            if not resolved.is_relative_to(left_out):
                found.setdefault(resolved, image)
    if empty or not found:
        raise DatasetError(
            f"no image found at {', '.join(empty) or ', '.join(map(str, sources))}; name image "
            f"files, folders or patterns; images end with {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return list(found.values())


def picture_paths(images: Sequence[ImageSource], folder: Path) -> list[Path]:
    """Choose where to draw each image: below a folder, under its own relative path.

    JPEG stays JPEG, all else becomes PNG. No two images share a path, not even on a file system
    that ignores case, and none is the path of an input: the later one gets a number.
    """
    folder = folder.resolve()
    taken = {str(image.path.resolve()).casefold() for image in images}
    paths = []
    for image in images:
        suffix = ".jpg" if image.path.suffix.lower() in (".jpg", ".jpeg") else ".png"
        wanted = (folder / image.relative).with_suffix(suffix)
        for number in itertools.count(2):
            if str(wanted).casefold() not in taken:
                break
            wanted = wanted.with_name(f"{image.relative.stem}-{number}{suffix}")
        taken.add(str(wanted).casefold())
        paths.append(wanted)
    return paths


def _images_of(source: Path) -> Iterator[ImageSource]:
    """List the images of one source; nothing if there are none."""
    if source.is_file():
        yield ImageSource(source, Path(source.name))
    elif source.is_dir():
        yield from _with_image_suffix(source.rglob("*"), root=source)
    else:
        fixed = itertools.takewhile(lambda part: not glob.has_magic(part), source.parts)
        # Path.glob takes no absolute pattern and walks `**` differently from Python to Python.
        matches = glob.iglob(str(source), recursive=True)  # noqa: PTH207
        yield from _with_image_suffix(map(Path, matches), root=Path(*fixed))


def _with_image_suffix(paths: Iterator[Path], *, root: Path) -> Iterator[ImageSource]:
    for path in sorted(paths):
        relative = path.relative_to(root)
        is_hidden = any(part.startswith(".") for part in relative.parts)
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() and not is_hidden:
            yield ImageSource(path, relative)
