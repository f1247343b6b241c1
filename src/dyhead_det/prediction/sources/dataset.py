"""The images of a data set of any format, with its own ids and names."""

from pathlib import Path

from dyhead_det.data.formats.read import load_annotations
from dyhead_det.data.formats.source import Source
from dyhead_det.prediction.sources.files import ImageSource


def dataset_images(annotations: Path, images: Path | None) -> list[ImageSource]:
    """List the images of a data set, those without an object too.

    Args:
        annotations: a COCO file, YOLO's `data.yaml` or the folder of a data set.
        images: the folder of the images; None for where the format has them.

    Returns:
        The images in the order of the data set. Where the size that is annotated is the one of the
        image before it is turned as its metadata say, boxes refer to that.

    Raises:
        DatasetError: If the annotations cannot be used.
    """
    dataset = load_annotations(Source(annotations, images), part="val")
    return [
        ImageSource(dataset.path(i), Path(dataset.file_names[i]), int(image_id), dataset.size_wh(i))
        for i, image_id in enumerate(dataset.image_ids)
    ]
