"""The classes of a data set that are wanted, in the order that is wanted."""

import logging

from dyhead_det.config.section import did_you_mean
from dyhead_det.contracts import CategoryMap
from dyhead_det.data.coco.alignment import relabeled
from dyhead_det.data.coco.dataset import CocoDataset
from dyhead_det.errors import DatasetError
from dyhead_det.escaping import listed, printable

logger = logging.getLogger(__name__)


def choose_classes(dataset: CocoDataset, names: tuple[str, ...], *, option: str) -> CocoDataset:
    """Return all images with the objects of some classes, labeled in the order of their names.

    Args:
        dataset: what to choose from.
        names: of the classes, each once.
        option: how they were given, for messages.

    Raises:
        DatasetError: if the data set does not have one of them, with the names that are near.
    """
    own = dataset.categories
    unknown = [name for name in names if name not in own.label_of_name]
    if unknown:
        wrong = "; ".join(
            f"{printable(name, max_length=80)!r}, {did_you_mean(name, own.names)}".rstrip(", ")
            for name in unknown[:10]
        )
        raise DatasetError(
            f"{option}: {dataset.annotations_path} has no class {wrong}; it has: "
            f"{listed(own.names)}"
        )
    chosen = relabeled(dataset, CategoryMap(tuple(own[own.label_of_name[name]] for name in names)))
    left_out = [name for name in own.names if name not in names]
    if left_out:
        logger.info(
            "%s: %s chooses %d of %d classes; left out with %d objects: %s",
            dataset.annotations_path,
            option,
            len(names),
            len(own),
            len(dataset.labels) - len(chosen.labels),
            listed(left_out),
        )
    return chosen
