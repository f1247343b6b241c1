"""What the commands look at: annotations with their images, or the data of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from dyhead_det.config.file import load_config
from dyhead_det.config.schema import DataConfig, RunConfig, SplitConfig, ValidationConfig
from dyhead_det.config.shipped import shipped_configs
from dyhead_det.data.build_datasets import (
    load_training_data,
    load_validation_data,
    run_sources,
)
from dyhead_det.data.coco.dataset import CocoDataset
from dyhead_det.data.formats.parts import part_sources
from dyhead_det.data.formats.source import YAML_SUFFIXES, Source
from dyhead_det.data.formats.yolo_config import is_yolo_config, read_yaml_mapping
from dyhead_det.data.stores.locate import location_text
from dyhead_det.data.stores.store import ImageLocation
from dyhead_det.errors import ConfigError, DatasetError

# The detector whose anchors and input size count where no run is named.
_USUAL_CONFIG = "own_data"


class Part(NamedTuple):
    """One part of a data set; split: what messages call it, ``train`` or ``val``."""

    split: Literal["train", "val"]
    source: Source


@dataclass(frozen=True)
class Target:
    """The parts to look at, and the run that trains on them.

    config: with a detector that comes with the package where no run is named; config_name: what
    messages call it.
    """

    parts: tuple[Part, ...]
    config: RunConfig
    config_name: str

    @property
    def skips_broken(self) -> bool:
        """Whether images that cannot be read are left out instead of ending a run."""
        return self.config.data.broken_images == "skip"

    def load(self, split: Literal["train", "val"]) -> CocoDataset:
        """Load a part as training does.

        Raises:
            ConfigError: if there is no such part.
            DatasetError: if it cannot be used.
        """
        if split == "train":
            return load_training_data(self.config.data)
        dataset = load_validation_data(self.config.data)
        if dataset is None:
            raise ConfigError("there are no validation data; give data.val")
        return dataset


def read_target(
    path: Path,
    *,
    images: ImageLocation | None = None,
    also: Sequence[Path] = (),
    overrides: Sequence[str] = (),
) -> Target:
    """Read what a command line names.

    Args:
        path: the YAML file of a run; or a data set: a COCO file, a folder in any format, or YOLO's
            `data.yaml`.
        images: where the images of COCO files are; None looks for it.
        also: other COCO files of the same folder.
        overrides: values of the YAML file of a run, ``key.path=value``.

    Raises:
        ConfigError: if the options do not go together, or the YAML file cannot be used.
        DatasetError: if there are no data where they are looked for.
    """
    if _is_run(path):
        if images is not None or also:
            msg = f"{path} names its annotations and images itself; leave out --images and --also"
            raise ConfigError(msg)
        config = load_config(path, tuple(overrides))
        parts = tuple(Part(*named) for named in run_sources(config.data).items())
        return Target(parts, config, path.stem)
    if overrides:
        raise ConfigError(f"--set changes a YAML file of a run, which {path} is not")
    _, sources = part_sources(Source(path, images))
    named = [*sources.values(), *(Source(other, images) for other in also)]
    data = DataConfig(
        train=_section(named[0]),
        val=ValidationConfig(**_section(sources["val"]).model_dump()) if "val" in sources else None,
    )
    config = load_config(shipped_configs()[_USUAL_CONFIG]).model_copy(update={"data": data})
    train, *others = named
    parts = (Part("train", train), *(Part("val", other) for other in others))
    return Target(parts, config, _USUAL_CONFIG)


def _is_run(path: Path) -> bool:
    """Tell the YAML file of a run from a data set, one that cannot be read included."""
    if path.is_dir() or path.suffix.lower() not in YAML_SUFFIXES:
        return False
    try:
        return not is_yolo_config(read_yaml_mapping(path))
    except DatasetError:
        return True


def _section(source: Source) -> SplitConfig:
    """Return the section of a configuration that names a source."""
    return SplitConfig(
        annotations=str(source.annotations.absolute()),
        images=None if source.images is None else location_text(source.images),
        split=source.split,
    )
