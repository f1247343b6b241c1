"""The sections of a data set: where it lies, how it is read, how images are drawn and changed."""

import re
from collections import Counter
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from dyhead_det.config.section import Fraction, PathText, Section, setting

ScaleFactor = Annotated[float, Field(gt=0, le=10)]


ClassName = Annotated[str, Field(min_length=1, max_length=1000)]


class AnnotationsConfig(Section):
    """Annotations and their images."""

    annotations: PathText | None = setting(
        None,
        "A COCO file, a `data.yaml` of YOLO or a folder of Pascal VOC, relative to `root`; null "
        "looks for what lies in `root`.",
    )
    images: PathText | None = setting(
        None,
        "Where the images are, relative to `root`: a folder; for COCO also a `.tar`, a pattern of "
        "several (`images-{000..015}.tar`) or a URL; null takes the folder that the format or the "
        "names of the folders say.",
    )


class SplitConfig(AnnotationsConfig):
    """One part of a data set."""

    split: PathText | None = setting(
        None, "The name of the part in YOLO and Pascal VOC, such as `trainval`; null: `train`."
    )


def _split_name_or_share(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, str | float | int | None):
        raise ValueError("is neither the name of a split nor a share of the training images")
    if isinstance(value, float | int) and not 0 < value < 1:
        raise ValueError("is no share of the training images between 0 and 1")
    return value


class ValidationConfig(AnnotationsConfig):
    """What is evaluated on: a part of the data set, or a share of the training images."""

    split: Annotated[PathText | float | None, BeforeValidator(_split_name_or_share)] = setting(
        None,
        "The name of the part, null: `val`; or the share of the training images that is held out, "
        "such as 0.2, with about the same share of the objects of each class.",
        unit="share",
    )
    group: Annotated[str, Field(min_length=1, max_length=1000)] | None = setting(
        None,
        "With a share: a regular expression; images in whose file names it finds the same (its "
        "first group, if it has one) stay together, such as those of one video.",
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] = setting(
        0,
        "With a share: another seed, another choice. It does not follow the seed of the run.",
        unit="seed",
    )

    @property
    def share(self) -> float | None:
        """The share of the training images, None where the part has annotations of its own."""
        return self.split if isinstance(self.split, float) else None

    @field_validator("group")
    @classmethod
    def _is_pattern(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"is no regular expression: {error}") from error
        return pattern

    @model_validator(mode="after")
    def _share_or_annotations(self) -> "ValidationConfig":
        if self.share is None and (self.group is not None or self.seed):
            raise ValueError("split: give a share, such as 0.2; group and seed are for that only")
        if self.share is not None and (self.annotations or self.images):
            raise ValueError(
                "split: a share of the training images has no annotations and images of its own"
            )
        return self


class DatasetConfig(SplitConfig):
    """A data set by itself: what `eval --data` reads."""

    root: PathText = setting(
        ".", "The folder that the other paths start from, relative to the current folder."
    )


class AugmentConfig(Section):
    """What happens to training images besides the detector's own resizing (`model.input`)."""

    horizontal_flip: Fraction = setting(
        0.5, "How often left and right are exchanged.", unit="probability"
    )
    vertical_flip: Fraction = setting(
        0.0, "How often top and bottom are exchanged.", unit="probability"
    )
    photometric: bool = setting(
        False, "Change brightness, contrast, saturation and hue by chance, as in SSD."
    )
    large_scale_jitter: tuple[ScaleFactor, ScaleFactor] | None = setting(
        None,
        "Resize by a factor drawn between these two, then crop or pad to a square of the test "
        "size; null leaves it out.",
        unit="factor",
    )

    @field_validator("large_scale_jitter")
    @classmethod
    def _smaller_first(cls, factors: tuple[float, float] | None) -> tuple[float, float] | None:
        if factors is not None and factors[0] > factors[1]:
            raise ValueError("has the greater factor first")
        return factors


class UniformSampling(Section):
    """Every image once an epoch."""

    name: Literal["uniform"] = setting(..., "Every image once an epoch.")


class RepeatFactorSampling(Section):
    """Images of rare classes come more often, as in LVIS."""

    name: Literal["repeat_factor"] = setting(..., "Images of rare classes come more often.")
    threshold: Annotated[float, Field(gt=0, le=1)] = setting(
        0.001, "Classes in a smaller share of the images are rare.", unit="share"
    )


class ClassBalancedSampling(Section):
    """All classes come equally often, whatever the number of their images."""

    name: Literal["class_balanced"] = setting(..., "All classes come equally often.")


SamplingConfig = Annotated[
    UniformSampling | RepeatFactorSampling | ClassBalancedSampling, Field(discriminator="name")
]


class DataConfig(Section):
    """Where the data lie and how they are read."""

    root: PathText = setting(
        ".", "The folder that the other paths start from, relative to the current folder."
    )
    format: Literal["auto", "coco", "yolo", "voc"] = setting(
        "auto", "How annotations are written; `auto` looks at the files."
    )
    train: SplitConfig = setting(SplitConfig(), "What is trained on.")
    val: ValidationConfig | None = setting(
        None, "What is evaluated on during training and chooses `best.pt`; null goes without."
    )
    classes: Annotated[tuple[ClassName, ...], Field(min_length=1)] | None = setting(
        None, "The classes to find, in this order; null takes all of them, as the data have them."
    )
    empty_images: Literal["keep", "drop"] = setting(
        "keep", "Whether images without objects are trained on."
    )
    broken_images: Literal["error", "skip"] = setting(
        "error", "What an image that cannot be read is: the end of a run, or left out with a word."
    )
    num_workers: Annotated[int, Field(ge=0, le=256)] = setting(
        2, "Processes that read images; 0 reads in the main process.", unit="processes"
    )
    prefetch_factor: Annotated[int, Field(ge=1, le=1024)] = setting(
        2, "Batches that each of these processes holds ready.", unit="batches"
    )
    persistent_workers: bool = setting(True, "These processes live on from epoch to epoch.")
    pin_memory: bool = setting(
        True, "Put batches where the GPU can fetch them itself; only has an effect with CUDA."
    )
    reduce_jpegs: bool = setting(
        True,
        "In training, decode JPEG files at 1/2, 1/4 or 1/8 of their size where that is not smaller "
        "than `model.input`.",
    )
    group_by_aspect_ratio: bool = setting(
        False, "Batches of wide images and of others, which need less padding."
    )
    sampling: SamplingConfig = setting(
        UniformSampling(name="uniform"), "How often an image comes in an epoch."
    )
    augment: AugmentConfig = setting(AugmentConfig(), "How training images are changed.")

    @field_validator("val", mode="before")
    @classmethod
    def _part_as_validation(cls, val: object) -> object:
        """Take a part that was made in Python for training."""
        return ValidationConfig(**val.model_dump()) if isinstance(val, SplitConfig) else val

    @field_validator("classes")
    @classmethod
    def _classes_once(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        twice = sorted(name for name, times in Counter(names).items() if times > 1)
        if twice:
            raise ValueError(f"names a class twice: {', '.join(twice)}")
        return names
