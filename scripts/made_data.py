"""Data that the benchmarks make: photograph-like files, larger photographs, many annotations."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

BOXES_PER_IMAGE = 7.3  # as in COCO


def draw_photographs(folder: Path, *, width: int, height: int, count: int) -> None:
    """Write JPEG files of soft shapes with some noise, and `train.json` with five boxes each."""
    random = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    images, boxes = [], []
    for number in range(1, count + 1):
        soft = Image.fromarray(random.integers(0, 256, (height // 40, width // 40, 3), np.uint8))
        pixels = np.asarray(soft.resize((width, height), Image.Resampling.BICUBIC), np.float32)
        noisy = pixels + random.normal(0, 6, (height, width, 1)).astype(np.float32)
        picture = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        picture.save(folder / "images" / f"{number}.jpg", quality=90)
        images.append(
            {"id": number, "file_name": f"{number}.jpg", "width": width, "height": height}
        )
        corners = random.uniform(0, 0.5, (5, 2)) * (width, height)
        sides = random.uniform(0.1, 0.5, (5, 2)) * (width, height)
        drawn = np.concatenate([corners, sides], axis=1).round(2).tolist()
        boxes += [(number, box) for box in drawn]
    write_json(folder / "train.json", coco_document(images, boxes, segmentation=[]))


def draw_small_images(folder: Path, count: int) -> None:
    """Write JPEG files of 64 pixels and about 3 kB, and `train.json` with one box each."""
    random = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    noise = random.integers(0, 256, (100, 64, 64, 3), np.uint8)
    images = []
    for number in range(1, count + 1):
        name = f"{number:07}.jpg"
        picture = np.roll(noise[number % 100], number // 100, axis=0)  # none like another one
        Image.fromarray(picture).save(folder / "images" / name, quality=40)
        images.append({"id": number, "file_name": name, "width": 64, "height": 64})
    boxes = [(number, [8.0, 8.0, 24.0, 24.0]) for number in range(1, count + 1)]
    write_json(folder / "train.json", coco_document(images, boxes, segmentation=[]))


def enlarge_photographs(source: Path, folder: Path, *, long_edge: int, count: int) -> None:
    """Write some photographs of a data set, those with boxes, anew with this longer edge."""
    document = json.loads((source / "train.json").read_bytes())
    annotated = {annotation["image_id"] for annotation in document["annotations"]}
    (folder / "images").mkdir(parents=True)
    images, boxes = [], []
    for record in [image for image in document["images"] if image["id"] in annotated][:count]:
        factor = long_edge / max(record["width"], record["height"])
        size = (round(record["width"] * factor), round(record["height"] * factor))
        with Image.open(source / "images" / record["file_name"]) as picture:
            larger = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        larger.save(folder / "images" / f"{record['id']}.jpg", quality=90)
        images.append(
            {
                "id": record["id"],
                "file_name": f"{record['id']}.jpg",
                "width": size[0],
                "height": size[1],
            }
        )
        boxes += [
            (record["id"], [edge * factor for edge in annotation["bbox"]])
            for annotation in document["annotations"]
            if annotation["image_id"] == record["id"]
        ]
    write_json(folder / "train.json", coco_document(images, boxes, segmentation=[]))


def write_annotations(path: Path, num_boxes: int) -> None:
    """Write annotations with polygons, as many for an image as COCO has."""
    random = np.random.default_rng(0)
    num_images = max(1, round(num_boxes / BOXES_PER_IMAGE))
    images = [
        {
            "license": 3,
            "file_name": f"{number:012d}.jpg",
            "coco_url": f"http://images.example.org/train/{number:012d}.jpg",
            "height": 480,
            "width": 640,
            "date_captured": "2013-11-14 11:18:45",
            "flickr_url": f"http://farm.example.org/8186/{number:012d}_z.jpg",
            "id": number,
        }
        for number in range(1, num_images + 1)
    ]
    owners = random.integers(1, num_images + 1, num_boxes).tolist()
    boxes = random.uniform((0, 0, 5, 5), (300, 200, 300, 250), (num_boxes, 4)).round(2).tolist()
    polygon = random.uniform(0, 480, 48).round(2).tolist()
    owned = list(zip(owners, boxes, strict=True))
    write_json(path, coco_document(images, owned, segmentation=[polygon]))


def coco_document(
    images: list[dict[str, Any]],
    boxes: Sequence[tuple[int, list[float]]],
    *,
    segmentation: list[list[float]],
) -> dict[str, Any]:
    """Return boxes of images, by id, as COCO writes them, in 80 classes."""
    return {
        "images": images,
        "annotations": [
            {
                "segmentation": segmentation,
                "area": box[2] * box[3],
                "iscrowd": 0,
                "image_id": image_id,
                "bbox": box,
                "category_id": number % 80 + 1,
                "id": number,
            }
            for number, (image_id, box) in enumerate(boxes, start=1)
        ],
        "categories": [{"id": number, "name": f"class {number}"} for number in range(1, 81)],
    }


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a document at once: `json.dump` takes several times as long."""
    path.write_text(json.dumps(document), encoding="utf-8")
