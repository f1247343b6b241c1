"""A data set -> a new folder in any format, whole or not at all."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from dyhead_det.data.coco.dataset import CocoDataset
from dyhead_det.data.formats.output import Output
from dyhead_det.data.formats.source import Format
from dyhead_det.data.formats.voc import LABELS
from dyhead_det.data.formats.write_coco import write_coco
from dyhead_det.data.formats.write_voc import write_voc
from dyhead_det.data.formats.write_yolo import write_yolo
from dyhead_det.data.images import held
from dyhead_det.data.stores.locate import folder_path
from dyhead_det.errors import ConfigError
from dyhead_det.escaping import listed
from dyhead_det.files import folder_written_whole, link_or_copy

Files = Literal["link", "copy", "reference"]
Parts = Mapping[str, Sequence[CocoDataset]]

# All that stands at the top of a folder that was written here, whatever the format.
_OWN_NAMES = (
    *("train.json", "val.json", "test.json", "images"),
    *("labels", "data.yaml"),
    *("Annotations", "ImageSets", "JPEGImages", LABELS),
)
_WRITERS = {"coco": write_coco, "yolo": write_yolo, "voc": write_voc}


def write_dataset(
    parts: Parts, out: Path, form: Format, *, files: Files = "link", overwrite: bool = False
) -> Output:
    """Write data sets to a new folder.

    Args:
        parts: what to write, by part; several data sets of a part are joined.
        out: the folder.
        form: the format.
        files: whether images get a second name (are copied where the disk cannot do that), are
            copied, or stay where they are, which COCO alone can do.
        overwrite: replace a folder that was written so before.

    Returns:
        What was written.

    Raises:
        ConfigError: if the folder may not be written, or images cannot stay where they are.
        DatasetError: if there is no image, or a name that the format cannot hold.
    """
    _require_replaceable(out, parts, overwrite=overwrite)
    if files == "reference" and form != "coco":
        raise ConfigError(
            f"the images of a data set in the format {form} lie in its own folder; give --files "
            "link or copy"
        )
    output = Output.of(parts, is_flat=form == "voc")
    if files == "reference":
        output = output.with_names_below(images_folder(parts))
    out.parent.mkdir(parents=True, exist_ok=True)
    with folder_written_whole(out) as folder:
        _WRITERS[form](output, folder)
        if files != "reference":
            _place_images(output, folder, form, files)
    return output


def images_folder(parts: Parts) -> Path:
    """Return the folder that holds the images of all parts.

    Raises:
        ConfigError: if some lie in archives or behind a URL.
    """
    places = [dataset.images.location for several in parts.values() for dataset in several]
    folders = [folder for place in places if (folder := folder_path(place)) is not None]
    if len(folders) < len(places):
        raise ConfigError("images in archives or behind a URL are written as files: --files copy")
    return Path(os.path.commonpath([folder.absolute() for folder in folders]))


def _place_images(
    output: Output, folder: Path, form: Format, files: Literal["link", "copy"]
) -> None:
    place = link_or_copy if files == "link" else shutil.copyfile
    with tqdm(
        total=output.num_images, desc="images", unit="image", leave=False, disable=None
    ) as bar:
        for part, images in output.parts.items():
            below = folder / ("JPEGImages" if form == "voc" else f"images/{part}")
            for image in images:
                target = below / image.name
                target.parent.mkdir(parents=True, exist_ok=True)
                file = held(image.file)
                if isinstance(file, Path):
                    place(file.resolve(), target)  # a link to a link may lead nowhere from there
                else:
                    target.write_bytes(file.open().read())
                bar.update()


def _require_replaceable(out: Path, parts: Parts, *, overwrite: bool) -> None:
    """Make sure that nothing is lost: a folder is replaced if asked for, and if it is one of ours.

    Raises:
        ConfigError: if there is something else.
    """
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir() or out.is_symlink():
        raise ConfigError(f"{out} is there already, and is no folder; give another one by --out")
    names = sorted(path.name for path in out.iterdir())
    if not names:
        return
    if not overwrite:
        raise ConfigError(
            f"{out} is there already; give another folder by --out, or replace it by --overwrite"
        )
    others = [name for name in names if name not in _OWN_NAMES]
    if others:
        raise ConfigError(
            f"{out} is not replaced, it holds files of others: {listed(others)}; give another "
            "folder by --out"
        )
    there = out.resolve()
    for dataset in (dataset for several in parts.values() for dataset in several):
        for path in (dataset.annotations_path, dataset.images.location):
            if isinstance(path, Path) and path.resolve().is_relative_to(there):
                raise ConfigError(
                    f"{out} is not replaced, it holds what is read: {path}; give another folder by "
                    "--out"
                )
