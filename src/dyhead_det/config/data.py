"""The sections of a data set: where it lies, how it is read, how images are drawn and changed."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from dyhead_det.config.section import Fraction, PathText, Section, setting

ScaleFactor = Annotated[float, Field(gt=0, le=10)]


class SplitConfig(Section):
    """One part of a data set."""

    annotations: PathText = setting(..., "A COCO annotation file, relative to `root`.")
    images: PathText = setting(..., "The folder of its images, relative to `root`.")


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
    train: SplitConfig = setting(..., "What is trained on.")
    val: SplitConfig | None = setting(
        None, "What is evaluated on during training and chooses `best.pt`; null goes without."
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
