"""Draw the demo data set: colorful shapes over textured backgrounds, in COCO format.

The same seed gives the same pictures, and with one version of Pillow the same bytes.
"""

import colorsys
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dyhead_det.data.demo.styles import EASY, STYLES, DemoStyle, Floats, outline
from dyhead_det.errors import DatasetError
from dyhead_det.files import folder_written_whole, require_writable

Mask = NDArray[np.bool_]

_HUE_SPREAD = 0.05
_SUPERSAMPLING = 4
_EMPTY_SHARE = 0.08
_LEAST_CONTRAST = 100.0  # distance in RGB between a shape and what it covers
_RIM = 0.82  # where the darker rim begins, as a part of the radius
_HOLE = 0.5
_GRAIN = 3.0


def draw_demo(
    folder: Path,
    *,
    num_train: int,
    num_val: int,
    size: int,
    seed: int,
    style: DemoStyle = EASY,
) -> None:
    """Draw `train.json`, `val.json` and the pictures in `train/` and `val/`, all or nothing.

    A folder that already holds this very data set is left alone, another demo data set is replaced.

    Args:
        folder: where the data set shall lie.
        num_train: number of training pictures.
        num_val: number of validation pictures.
        size: edge of the square pictures in pixels.
        seed: of everything that is drawn.
        style: what is drawn.

    Raises:
        DatasetError: if the folder holds something else.
        ConfigError: if nothing can be written there.
        OSError: if the disk is full.
    """
    info = {
        "description": style.description,
        "version": "1",
        "num_train": num_train,
        "num_val": num_val,
        "size": size,
        "seed": seed,
    }
    if _is_complete(folder, info):
        return
    if os.path.lexists(folder) and not _is_replaceable(folder):
        raise DatasetError(
            f"{folder} holds something else than a demo data set; choose another folder"
        )
    require_writable(folder.parent, option="FOLDER")
    with folder_written_whole(folder) as drawn:
        _draw_split(drawn, "train", range(num_train), info)
        _draw_split(drawn, "val", range(num_train, num_train + num_val), info)


def _is_complete(folder: Path, info: dict[str, Any]) -> bool:
    for split in ("train", "val"):
        document = _read_json(folder / f"{split}.json")
        if document.get("info") != info:
            return False
        names = [image["file_name"] for image in document["images"]]
        if not all((folder / split / name).is_file() for name in names):
            return False
    return True


def _is_replaceable(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    info = _read_json(folder / "train.json").get("info")
    is_demo = isinstance(info, dict) and info.get("description") in STYLES
    return is_demo or not any(folder.iterdir())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _draw_split(folder: Path, split: str, numbers: range, info: dict[str, Any]) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    size, style = info["size"], STYLES[info["description"]]
    (folder / split).mkdir(parents=True)
    for number in numbers:
        picture, found = _draw_picture(np.random.default_rng((info["seed"], number)), size, style)
        name = f"{number:05d}.png"
        Image.fromarray(picture).save(folder / split / name, format="PNG", compress_level=6)
        image_id = number + 1
        images.append({"id": image_id, "file_name": name, "width": size, "height": size})
        for position, annotation in enumerate(found, start=1):
            # A hundred ids for every picture: unique in both files together.
            annotation_id = number * 100 + position
            annotations.append({"id": annotation_id, "image_id": image_id, **annotation})
    categories = [
        {"id": dataset_id, "name": name, "supercategory": "shape"}
        for name, dataset_id in style.shapes.items()
    ]
    document = {
        "info": info,
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
    (folder / f"{split}.json").write_text(json.dumps(document), encoding="utf-8")


def _draw_picture(
    rng: np.random.Generator, size: int, style: DemoStyle
) -> tuple[NDArray[np.uint8], list[dict[str, Any]]]:
    """Return a picture, (size, size, 3), and what is in it as parts of COCO annotations."""
    picture = _background(rng, size)
    num_shapes = 0 if rng.random() < _EMPTY_SHARE else int(rng.integers(1, style.most_shapes + 1))
    least, greatest = np.log(style.diameters)
    logs = rng.uniform(least, greatest, size=num_shapes)
    radii = np.exp(logs) * size / 2
    visible: list[tuple[str, Mask]] = []
    for radius in sorted(radii, reverse=True):  # small ones on top
        name = str(rng.choice(list(style.shapes)))
        placed = _place(rng, name, radius, size, [mask for _, mask in visible], style)
        if placed is None:
            continue
        mask, rim = placed
        hue = style.hues[name] if name in style.hues else float(rng.random())
        picture = _paint(rng, picture, mask, rim, hue=hue)
        visible = [(other, below & ~mask) for other, below in visible] + [(name, mask)]
    annotations = [
        {
            "category_id": style.shapes[name],
            "bbox": _box_around(mask),
            "area": float(mask.sum()) / _SUPERSAMPLING**2,
            "iscrowd": 0,
        }
        for name, mask in visible
    ]
    grain = rng.normal(0, _GRAIN, size=picture.shape)
    return np.clip(np.rint(picture + grain), 0, 255).astype(np.uint8), annotations


def _background(rng: np.random.Generator, size: int) -> Floats:
    """Return clouds and stripes of two colors with a few scratches, (size, size, 3)."""
    colors = rng.uniform(60, 160, size=(2, 1)) + rng.uniform(-35, 35, size=(2, 3))
    cells = int(rng.integers(3, 9))
    clouds = Image.fromarray(rng.random((cells, cells)).astype(np.float32))
    mixture = np.asarray(clouds.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float64)
    ys, xs = np.mgrid[:size, :size] / size
    angle, waves = rng.uniform(0, np.pi), rng.uniform(4, 16)
    stripes = np.sin(2 * np.pi * waves * (xs * np.cos(angle) + ys * np.sin(angle)))
    mixture = np.clip(mixture + rng.uniform(0, 0.15) * stripes, 0, 1)[..., None]
    mixed = colors[0] * (1 - mixture) + colors[1] * mixture

    image = Image.fromarray(mixed.astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 5))):
        ends = [tuple(end) for end in rng.uniform(0, size, size=(2, 2)).tolist()]
        color = tuple(int(value) for value in rng.uniform(30, 225, size=3))
        draw.line(ends, fill=color, width=int(rng.integers(1, 3)))
    return np.asarray(image, dtype=np.float64)


def _place(
    rng: np.random.Generator,
    name: str,
    radius: float,
    size: int,
    others: list[Mask],
    style: DemoStyle,
) -> tuple[Mask, Mask] | None:
    """Find room for a shape that leaves most of all others visible.

    Returns:
        The shape and its rim as supersampled masks; None if there is no room.
    """
    whole = [style.least_visible * other.sum() for other in others]
    for _ in range(style.num_tries):
        center = rng.uniform(radius, size - radius, size=2)
        angle = rng.uniform(-style.greatest_tilt, style.greatest_tilt)
        stretch, direction = 1.0, 0.0
        if style.greatest_stretch > 1:
            stretch = float(np.exp(rng.uniform(0, np.log(style.greatest_stretch))))
            direction = float(rng.uniform(0, np.pi))
        corners = outline(name, angle, stretch, direction)
        mask = _shape_mask(name, center, radius * corners, size)
        if all((other & ~mask).sum() >= least for other, least in zip(others, whole, strict=True)):
            return mask, mask & ~_shape_mask(name, center, radius * _RIM * corners, size)
    return None


def _shape_mask(name: str, center: Floats, corners: Floats, size: int) -> Mask:
    """Return where a shape with these corners around its center is, (size * 4, size * 4)."""
    edge = size * _SUPERSAMPLING
    canvas = Image.new("L", (edge, edge))
    draw = ImageDraw.Draw(canvas)
    draw.polygon([tuple(point) for point in ((center + corners) * _SUPERSAMPLING).tolist()], fill=1)
    if name == "ring":
        hole = (center + _HOLE * corners) * _SUPERSAMPLING
        draw.polygon([tuple(point) for point in hole.tolist()], fill=0)
    return np.asarray(canvas, dtype=np.bool_)


def _paint(
    rng: np.random.Generator, picture: Floats, mask: Mask, rim: Mask, *, hue: float
) -> Floats:
    """Return the picture with a shape on it, lit from above and with a darker rim."""
    coverage, rim_coverage = _downsample(mask)[..., None], _downsample(rim)[..., None]
    covered = picture[coverage[..., 0] > 0].mean(axis=0)
    color = _contrasting_color(rng, covered, hue)
    light = np.linspace(1.12, 0.88, len(picture))[:, None, None]
    inside = color * light * (coverage - rim_coverage) + color * 0.55 * rim_coverage
    return picture * (1 - coverage) + inside


def _contrasting_color(rng: np.random.Generator, covered: Floats, hue: float) -> Floats:
    while True:
        near = rng.normal(hue, _HUE_SPREAD) % 1
        saturation, value = rng.uniform(0.55, 1), rng.uniform(0.6, 1)
        color = 255 * np.array(colorsys.hsv_to_rgb(near, saturation, value))
        if np.linalg.norm(color - covered) >= _LEAST_CONTRAST:
            return color


def _downsample(mask: Mask) -> Floats:
    """Return the share of each pixel that a supersampled mask covers."""
    full = Image.fromarray(mask.view(np.uint8) * np.uint8(255))
    return np.asarray(full.reduce(_SUPERSAMPLING), dtype=np.float64) / 255


def _box_around(mask: Mask) -> list[float]:
    """Return ``[x, y, width, height]`` in pixels of the picture, exact to a quarter."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    left, top = int(columns[0]), int(rows[0])
    width, height = int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top
    return [edge / _SUPERSAMPLING for edge in (left, top, width, height)]
