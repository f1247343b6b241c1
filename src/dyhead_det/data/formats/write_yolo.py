"""A data set as YOLO files: fractions with all their digits, so that boxes come back as they were.

Crowds are left out: YOLO has no word for them.
"""

from pathlib import Path

from tqdm import tqdm

from dyhead_det.config.yaml12 import write_yaml
from dyhead_det.data.formats.output import Output, OutputImage
from dyhead_det.data.formats.yolo import label_file


def write_yolo(output: Output, folder: Path) -> None:
    """Write `data.yaml`, and a label file for every image, an empty one where there is nothing."""
    config = {part: f"images/{part}" for part in output.parts}
    names = list(output.categories.names)
    text = write_yaml({**config, "nc": len(names), "names": names})
    (folder / "data.yaml").write_text(text, encoding="utf-8")
    for part, images in output.parts.items():
        for image in tqdm(images, desc=f"labels of {part}", unit="file", leave=False, disable=None):
            path = label_file(folder / "images" / part / image.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_lines(image), encoding="utf-8")


def _lines(image: OutputImage) -> str:
    width, height = image.size_wh
    lines = []
    for thing in image.objects:
        if not thing.is_crowd:
            x, y, w, h = thing.box_xywh
            numbers = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
            lines.append(" ".join([str(thing.label), *map(repr, numbers)]) + "\n")
    return "".join(lines)
