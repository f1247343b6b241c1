"""Files of single images: the picture with boxes, YOLO's labels, a crop of each object."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from dyhead_det.contracts import CategoryMap
from dyhead_det.files import remove_abandoned, written_whole
from dyhead_det.prediction.detections import Detections
from dyhead_det.prediction.options import Output
from dyhead_det.prediction.outputs.paths import output_paths, picture_paths
from dyhead_det.prediction.sources.files import ImageSource

PICTURES, LABELS, CROPS = "pictures", "labels", "crops"
_JPEG_QUALITY = 92
_MOST_CHARACTERS = 60

# Position of the image, its pixels (3, H, W), what was found -> files.
ImageWriter = Callable[[int, Tensor, Detections], None]


def build_image_writers(
    outputs: Sequence[Output], images: Sequence[ImageSource], out: Path, categories: CategoryMap
) -> dict[str, ImageWriter]:
    """Return what writes the files of an image, by the folder below `out` that they go to."""
    writers: dict[str, ImageWriter] = {}
    if "pictures" in outputs:
        pictures = picture_paths(images, out / PICTURES)
        writers[PICTURES] = _writes_each(pictures, _write_picture)
    if "yolo" in outputs:
        labels = output_paths(images, out / LABELS, lambda _: ".txt")
        writers[LABELS] = _writes_each(labels, _write_labels)
    if "crops" in outputs:
        folders = output_paths(images, out / CROPS, lambda suffix: suffix)
        names = _file_names(categories.names)
        writers[CROPS] = _writes_each(
            folders, lambda path, image, found: _write_crops(path, image, found, names)
        )
    return writers


def _writes_each(
    paths: Sequence[Path], write: Callable[[Path, Tensor, Detections], None]
) -> ImageWriter:
    for folder in {path.parent for path in paths}:
        remove_abandoned(folder)

    def write_one(position: int, image: Tensor, detections: Detections) -> None:
        path = paths[position]
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, image, detections)

    return write_one


def _write_picture(path: Path, image: Tensor, detections: Detections) -> None:
    with written_whole(path) as unfinished:
        image_format = "JPEG" if path.suffix == ".jpg" else "PNG"
        detections.draw(image).save(unfinished, format=image_format, quality=_JPEG_QUALITY)


def _write_labels(path: Path, image: Tensor, detections: Detections) -> None:
    """Write a line per object: class number, center and size in parts of the image, score."""
    height, width = image.shape[1:]
    lines = []
    for each in detections:
        left, top, right, bottom = each.box
        numbers = (
            (left + right) / 2 / width,
            (top + bottom) / 2 / height,
            (right - left) / width,
            (bottom - top) / height,
            each.score,
        )
        lines.append(f"{each.label} " + " ".join(f"{number:.6f}" for number in numbers) + "\n")
    with written_whole(path) as unfinished:
        unfinished.write_text("".join(lines), encoding="ascii")


def _write_crops(
    path: Path, image: Tensor, detections: Detections, names: Mapping[int, str]
) -> None:
    """Write each object as a picture of its own into a folder called as the image."""
    path.mkdir(exist_ok=True)
    height, width = image.shape[1:]
    for number, each in enumerate(detections, start=1):
        left, top, right, bottom = each.box
        x, y = min(int(left), width - 1), min(int(top), height - 1)
        x_end, y_end = max(x + 1, int(np.ceil(right))), max(y + 1, int(np.ceil(bottom)))
        crop = image[:, y:y_end, x:x_end].permute(1, 2, 0).contiguous().numpy()
        with written_whole(path / f"{number:03}-{names[each.label]}.png") as unfinished:
            Image.fromarray(crop).save(unfinished, format="PNG")


def _file_names(names: Sequence[str]) -> dict[int, str]:
    """Return what classes are called in names of files: letters, digits, hyphens."""
    return {
        label: re.sub(r"[^\w-]+", "_", name)[:_MOST_CHARACTERS].strip("_") or f"class{label}"
        for label, name in enumerate(names)
    }
