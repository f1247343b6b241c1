"""Configuration -> data sets, checked before anything is built on them."""

import logging
from pathlib import Path

from dyhead_det.config.file import load_dataset_config
from dyhead_det.config.schema import (
    DataConfig,
    RepeatFactorSampling,
    SamplingConfig,
    SplitConfig,
    UniformSampling,
)
from dyhead_det.contracts import CategoryMap
from dyhead_det.data.balance import class_balanced_counts, repeat_factors
from dyhead_det.data.coco.alignment import aligned_to
from dyhead_det.data.coco.dataset import CocoDataset, load_coco, require_images
from dyhead_det.data.samplers import Counts
from dyhead_det.data.statistics import count
from dyhead_det.errors import ConfigError, DatasetError
from dyhead_det.escaping import listed, printable

logger = logging.getLogger(__name__)


def require_objects(dataset: CocoDataset) -> None:
    """Make sure that there is something to find.

    Raises:
        DatasetError: If there is no object, or nothing but crowds.
    """
    if dataset.is_crowd.all():  # also where there is nothing
        purpose = "train on" if dataset.split == "train" else "evaluate on"
        raise DatasetError(
            f"{dataset.annotations_path}: no annotated object to {purpose} in {len(dataset)} images"
        )


# What a data set must have besides records that can be read. `data check` asks for all of it.
REQUIREMENTS = (require_images, require_objects)


def load_training_data(config: DataConfig) -> CocoDataset:
    """Load what `data.train` names.

    Raises:
        DatasetError: If annotations cannot be used, image files are missing, or nothing is left.
    """
    dataset = _load(Path(config.root), config.train, split="train", config=config)
    if config.empty_images == "drop":
        dataset = dataset.without_empty_images()
    if not len(dataset):
        msg = f"{dataset.annotations_path}: no image to train on; check data.train.annotations"
        raise DatasetError(msg)
    require_objects(dataset)
    unused = [name for name, number in count(dataset).objects_of_class.items() if not number]
    if unused:
        logger.info(
            "%s: %d of %d classes have no object to learn from: %s",
            dataset.annotations_path,
            len(unused),
            len(dataset.categories),
            listed(unused),
        )
    return dataset


def load_validation_data(
    config: DataConfig, *, categories: CategoryMap | None = None
) -> CocoDataset | None:
    """Load what `data.val` names, if anything; errors as in `load_training_data`.

    Args:
        config: The data section of a run.
        categories: The classes of the detector that will be scored; None for those of the file.
    """
    if config.val is None:
        return None
    return _to_score(_load(Path(config.root), config.val, split="val", config=config), categories)


def _to_score(dataset: CocoDataset, categories: CategoryMap | None) -> CocoDataset:
    aligned = dataset if categories is None else aligned_to(dataset, categories)
    require_objects(aligned)
    return aligned


def image_counts(config: SamplingConfig, dataset: CocoDataset) -> Counts | None:
    """Return how often each training image comes an epoch, (N,); None where each comes once."""
    if isinstance(config, UniformSampling):
        return None
    if isinstance(config, RepeatFactorSampling):
        return repeat_factors(dataset, config.threshold)
    return class_balanced_counts(dataset)


def load_evaluation_data(
    config: DataConfig,
    *,
    data: Path | None,
    images: Path | None,
    categories: CategoryMap | None = None,
) -> CocoDataset:
    """Load what `eval` shall evaluate on.

    Args:
        config: The data section of the run that made the checkpoint.
        data: Annotations (.json) or a YAML file with root, annotations and images; None for the
            run's own validation data.
        images: The images of a .json file.
        categories: The classes of the detector that will be scored; None for those of the file.

    Raises:
        ConfigError: If the options do not go together.
        DatasetError: If the data cannot be used.
    """
    if data is None:
        dataset = load_validation_data(config, categories=categories)
        if dataset is None:
            msg = "the run of this checkpoint has no validation data; give some by --data"
            raise ConfigError(msg)
        return dataset
    if data.suffix.lower() == ".json":
        if images is None:
            msg = f"--data {data}: give the folder of its images by --images"
            raise ConfigError(msg)
        split = SplitConfig(annotations=str(data.resolve()), images=str(images.resolve()))
        return _to_score(_load(Path(), split, split="val", config=config), categories)
    if images is not None:
        msg = f"--images goes with a .json file; {data} names its images itself"
        raise ConfigError(msg)
    named = load_dataset_config(data)
    return _to_score(_load(Path(named.root), named, split="val", config=config), categories)


def _load(root: Path, part: SplitConfig, *, split: str, config: DataConfig) -> CocoDataset:
    try:
        root = root.expanduser()
    except RuntimeError as error:  # the home of nobody
        msg = f"{printable(root)}: {error}; give data.root another folder"
        raise DatasetError(msg) from error
    dataset = load_coco(root / part.annotations, root / part.images, split=split)
    if config.broken_images == "error":
        require_images(dataset)
    return dataset
