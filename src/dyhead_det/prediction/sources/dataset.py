"""The images of a data set of any format, with its own ids and names."""

from pathlib import Path

from dyhead_det.data.build_datasets import named_source
from dyhead_det.data.formats.read import load_annotations
from dyhead_det.data.stores.store import ImageLocation
from dyhead_det.prediction.sources.files import ImageSource


def dataset_images(data: Path, images: ImageLocation | None) -> list[ImageSource]:
    """List the images of a data set, those without an object too.

    Args:
        data: As `named_source` takes it.
        images: The images of a COCO file, as `open_store` takes it; None looks for them.

    Returns:
        The images in the order of the data set. Where the size that is annotated is the one of the
        image before it is turned as its metadata say, boxes refer to that.

    Raises:
        ConfigError: If the options do not go together.
        DatasetError: If the annotations cannot be used.
    """
    dataset = load_annotations(named_source(data, images), part="val")
    return [
        ImageSource(
            dataset.image_file(i), Path(dataset.file_names[i]), int(image_id), dataset.size_wh(i)
        )
        for i, image_id in enumerate(dataset.image_ids)
    ]
