"""Configuration -> data sets, checked before anything is built on them."""

import logging
from dataclasses import replace
from pathlib import Path

from dyhead_det.config.file import load_dataset_config
from dyhead_det.config.schema import (
    DataConfig,
    RepeatFactorSampling,
    SamplingConfig,
    SplitConfig,
    UniformSampling,
    ValidationConfig,
)
from dyhead_det.contracts import CategoryMap
from dyhead_det.data.balance import class_balanced_counts, repeat_factors
from dyhead_det.data.class_choice import choose_classes
from dyhead_det.data.coco.alignment import aligned_to
from dyhead_det.data.coco.dataset import CocoDataset, require_images
from dyhead_det.data.coco.records import Flags
from dyhead_det.data.formats.read import load_annotations
from dyhead_det.data.formats.source import (
    YAML_SUFFIXES,
    AnyFormat,
    Part,
    Source,
    formats_of_folder,
)
from dyhead_det.data.formats.yolo_config import is_yolo_config, read_yaml_mapping
from dyhead_det.data.samplers import Counts
from dyhead_det.data.statistics import count
from dyhead_det.data.stores.locate import image_location
from dyhead_det.data.stores.store import ImageLocation
from dyhead_det.data.stratified_split import held_out
from dyhead_det.errors import ConfigError, DatasetError
from dyhead_det.escaping import listed, printable
from dyhead_det.files import video_advice

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
    return _to_train(_load_training_images(config), config)


def load_run_data(config: DataConfig) -> tuple[CocoDataset, CocoDataset | None]:
    """Load what `data.train` and `data.val` name; images that they share are read once."""
    images = _load_training_images(config)
    train = _to_train(images, config)
    return train, _validation_data(config, train.categories, images)


def _to_train(dataset: CocoDataset, config: DataConfig) -> CocoDataset:
    if config.val is not None and config.val.share is not None:
        dataset = dataset.select_images(~held_out_images(dataset, config.val))
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
    return _validation_data(config, categories)


def _validation_data(
    config: DataConfig, categories: CategoryMap | None, training_images: CocoDataset | None = None
) -> CocoDataset | None:
    if config.val is None:
        return None
    if config.val.share is None:
        dataset = _load(_source(config, config.val), part="val", config=config)
    else:
        dataset = _load_training_images(config) if training_images is None else training_images
        dataset = replace(dataset.select_images(held_out_images(dataset, config.val)), split="val")
    if config.classes is not None:
        there = tuple(n for n in config.classes if n in dataset.categories.label_of_name)
        dataset = choose_classes(dataset, there, option="data.classes")
    return _to_score(dataset, categories)


def _load_training_images(config: DataConfig) -> CocoDataset:
    """Load all that `data.train` names, those that `data.val` takes a share of too."""
    dataset = _load(_source(config, config.train), part="train", config=config)
    if config.classes is not None:
        dataset = choose_classes(dataset, config.classes, option="data.classes")
    return dataset


def held_out_images(dataset: CocoDataset, config: ValidationConfig) -> Flags:
    """Return which training images `data.val` takes, (N,), where it takes a share of them."""
    return held_out(dataset, config.share or 0.0, group=config.group, seed=config.seed)


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
    images: ImageLocation | None,
    categories: CategoryMap | None = None,
) -> CocoDataset:
    """Load what `eval` shall evaluate on.

    Args:
        config: The data section of the run that made the checkpoint.
        data: As `named_source` takes it; None for the run's own validation data.
        images: The images of a COCO file, as `open_store` takes it; None looks for them.
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
    return _to_score(_load(named_source(data, images), part="val", config=config), categories)


def named_source(data: Path, images: ImageLocation | None) -> Source:
    """Return where the data lie that `--data` and `--images` name.

    Args:
        data: A COCO file, a folder in any format, YOLO's `data.yaml`, or a YAML file with root,
            annotations and images.
        images: The images of a COCO file, as `open_store` takes it; None looks for them.

    Raises:
        ConfigError: If the options do not go together, or the file can be none of these.
        DatasetError: If the file cannot be read.
    """
    if data.is_dir():
        return Source(data, images)
    if advice := video_advice(data):
        raise ConfigError(f"--data {advice}")
    suffix = data.suffix.lower()
    if suffix == ".xml":
        msg = f"--data {data}: Pascal VOC data are given by their folder, not by one of the files"
        raise ConfigError(msg)
    if suffix not in YAML_SUFFIXES:
        return Source(data, images)
    if images is not None:
        msg = f"--images goes with a .json file; {data} names its images itself"
        raise ConfigError(msg)
    if is_yolo_config(read_yaml_mapping(data)):
        return Source(data)
    named = load_dataset_config(data)
    return _source_below(Path(named.root), named, "auto")


def run_sources(config: DataConfig) -> dict[Part, Source]:
    """Return where the parts of a run lie; none for a share of the training images.

    Raises:
        DatasetError: If a name is not there that another format would not need.
    """
    sources: dict[Part, Source] = {"train": _source(config, config.train)}
    if config.val is not None and config.val.share is None:
        sources["val"] = _source(config, config.val)
    return sources


def _load(source: Source, *, part: Part, config: DataConfig) -> CocoDataset:
    dataset = load_annotations(source, part=part, broken_images=config.broken_images)
    if config.broken_images == "error":
        require_images(dataset)
    return dataset


def _source(config: DataConfig, named: SplitConfig | ValidationConfig) -> Source:
    return _source_below(Path(config.root), named, config.format)


def _source_below(root: Path, named: SplitConfig | ValidationConfig, form: AnyFormat) -> Source:
    try:
        root = root.expanduser()
    except RuntimeError as error:  # the home of nobody
        msg = f"{printable(root)}: {error}; give data.root another folder"
        raise DatasetError(msg) from error
    source = Source(
        root / (named.annotations or ""),
        None if named.images is None else image_location(named.images, root),
        form,
        named.split if isinstance(named.split, str) else None,
    )
    if named.annotations is not None and not source.annotations.exists():
        _explain_missing(root, source.annotations)
    return source


def _explain_missing(root: Path, annotations: Path) -> None:
    """Refuse a name that is not there where another format is: a configuration made for COCO.

    Raises:
        DatasetError: If the folder of the data set is one of YOLO or Pascal VOC.
    """
    there = formats_of_folder(root, "auto") if root.is_dir() else {}
    others = [form for form in there if form != "coco"]
    if others:
        raise DatasetError(
            f"no annotation file at {annotations}, but {root} is a data set in the format "
            f"{' and '.join(others)}; leave out the name: --set data.train={{}} --set data.val={{}}"
        )
