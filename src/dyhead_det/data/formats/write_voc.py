"""A data set as Pascal VOC: pixels from 1 on, the last one included; crowds are `difficult`.

Whole numbers are written as such, which all tools read; others with their digits.
"""

from pathlib import Path
from xml.sax.saxutils import escape

from tqdm import tqdm

from dyhead_det.contracts import CategoryMap
from dyhead_det.data.formats.output import Output, OutputImage, OutputObject
from dyhead_det.data.formats.voc import DECIMALS, IMAGE_SETS, LABELS
from dyhead_det.errors import DatasetError
from dyhead_det.escaping import listed

_IMAGE = """<annotation>
  <folder>JPEGImages</folder>
  <filename>{name}</filename>
  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>
  <segmented>0</segmented>
{objects}</annotation>
"""
_OBJECT = """  <object>
    <name>{name}</name>
    <pose>Unspecified</pose>
    <truncated>0</truncated>
    <difficult>{difficult}</difficult>
    <bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox>
  </object>
"""


def write_voc(output: Output, folder: Path) -> None:
    """Write `Annotations`, `ImageSets/Main` and `labels.txt`, the classes in their order.

    Raises:
        DatasetError: if a class has a name that a line of text cannot hold.
    """
    names = output.categories.names
    awkward = [name for name in names if name != name.strip() or not name.isprintable()]
    if awkward:
        raise DatasetError(
            "names of classes that Pascal VOC cannot hold, with line breaks or blanks around them: "
            f"{listed(awkward)}; rename them"
        )
    (folder / LABELS).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    (folder / IMAGE_SETS).mkdir(parents=True)
    (folder / "Annotations").mkdir()
    for part, images in output.parts.items():
        text = "".join(f"{image.stem}\n" for image in images)
        (folder / IMAGE_SETS / f"{part}.txt").write_text(text, encoding="utf-8")
        for image in tqdm(images, desc=f"labels of {part}", unit="file", leave=False, disable=None):
            path = folder / "Annotations" / f"{image.stem}.xml"
            path.write_text(_annotation(image, output.categories), encoding="utf-8")


def _annotation(image: OutputImage, categories: CategoryMap) -> str:
    width, height = image.size_wh
    objects = "".join(_object(thing, categories) for thing in image.objects)
    return _IMAGE.format(name=escape(image.name), width=width, height=height, objects=objects)


def _object(thing: OutputObject, categories: CategoryMap) -> str:
    x, y, w, h = thing.box_xywh
    return _OBJECT.format(
        name=escape(categories[thing.label].name),
        difficult=int(thing.is_crowd),
        xmin=_digits(x + 1),
        ymin=_digits(y + 1),
        xmax=_digits(x + w),
        ymax=_digits(y + h),
    )


def _digits(value: float) -> str:
    rounded = round(value, DECIMALS)
    return str(int(rounded)) if rounded.is_integer() else repr(rounded)
