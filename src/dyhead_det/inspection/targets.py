"""What the commands look at: an annotation file with its images, or the data of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from dyhead_det.config.file import load_config
from dyhead_det.config.schema import RunConfig
from dyhead_det.data.build_datasets import run_sources
from dyhead_det.data.formats.source import Source
from dyhead_det.errors import ConfigError


class Part(NamedTuple):
    """One part of a data set; split: what messages call it, ``train`` or ``val``."""

    split: Literal["train", "val"]
    source: Source


@dataclass(frozen=True)
class Target:
    """The parts to look at, and the run that they belong to, if any."""

    parts: tuple[Part, ...]
    config: RunConfig | None = None

    @property
    def skips_broken(self) -> bool:
        """Whether images that cannot be read are left out instead of ending a run."""
        return self.config is not None and self.config.data.broken_images == "skip"

    def part(self, split: str) -> Part:
        """Return one part.

        Raises:
            ConfigError: if there is none of that name.
        """
        for part in self.parts:
            if part.split == split:
                return part
        raise ConfigError(f"there is no {split} data; the parts are {self._names()}")

    def _names(self) -> str:
        return ", ".join(part.split for part in self.parts)


def read_target(
    path: Path,
    *,
    images: Path | None = None,
    also: Sequence[Path] = (),
    overrides: Sequence[str] = (),
) -> Target:
    """Read what a command line names.

    Args:
        path: a COCO annotation file, or the YAML file of a run.
        images: the folder of the images of annotation files.
        also: other annotation files of the same folder.
        overrides: values of the YAML file, ``key.path=value``.

    Raises:
        ConfigError: if the options do not go together, or the YAML file cannot be used.
    """
    if path.suffix.lower() in (".yaml", ".yml"):
        if images is not None or also:
            msg = f"{path} names its annotations and images itself; leave out --images and --also"
            raise ConfigError(msg)
        config = load_config(path, tuple(overrides))
        return Target(tuple(Part(*named) for named in run_sources(config.data).items()), config)
    if images is None:
        raise ConfigError(f"{path}: give the folder of its images by --images")
    if overrides:
        raise ConfigError(f"--set changes a YAML file of a run, which {path} is not")
    others = (Part("val", Source(other, images)) for other in also)
    return Target((Part("train", Source(path, images)), *others))
