"""What a detector is to the rest of the project: one `DetectorSpec`, in that detector's own file.

The list of them is `DETECTORS` in `detectors.py`. A detector of your own needs no entry there:
give its specification to `build_detector(..., spec=...)`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from dyhead_det.config.schema import Compat, Section
from dyhead_det.models.backbones.pyramid import DyHeadBackbone, Levels

# The section of `model.detector`.
Config = TypeVar("Config", bound=Section, contravariant=True)


class BuildModel(Protocol[Config]):
    """Builds the model inside a `Detector`, torchvision's or one that is called like it."""

    def __call__(
        self,
        config: Config,
        *,
        backbone: DyHeadBackbone,
        levels: Levels,
        transform: GeneralizedRCNNTransform,
        num_classes: int,
        compat: Compat,
    ) -> nn.Module:
        """Return a module with the attributes `backbone` and `transform`.

        Args:
            config: The section of `model.detector`.
            backbone: Images to a pyramid.
            levels: Names and strides of the pyramid.
            transform: Resizes, normalizes and pads images, and brings boxes back.
            num_classes: K, without background.
            compat: Whose conventions to follow.
        """


class LossNormalizers(Protocol):
    """Tells by what a dense detector divides its losses."""

    def __call__(
        self,
        model: Any,  # noqa: ANN401 - the model that this detector's builder returns
        targets: Sequence[Mapping[str, Tensor]],
        anchors: Sequence[Tensor],
        num_anchors_per_level: Sequence[int],
    ) -> dict[str, Tensor]:
        """Return one number per loss, from what is foreground in a batch.

        Args:
            model: With `anchor_generator` and `transform`.
            targets: Per image `boxes` (N, 4) and `labels` (N,), in pixels of the resized image.
            anchors: (A, 4) per image, level after level.
            num_anchors_per_level: L numbers whose sum is A.
        """


class RunHeads(Protocol):
    """Runs all that follows the backbone, for counting its operations."""

    def __call__(
        self,
        model: Any,  # noqa: ANN401 - the model that this detector's builder returns
        maps: list[Tensor],
    ) -> object:
        """Run on the pyramid of one image, maps (1, C, H_l, W_l), fine to coarse."""


def run_dense_head(
    model: Any,  # noqa: ANN401 - see `RunHeads`
    maps: list[Tensor],
) -> object:
    """Run a head that sees every position of every level once."""
    return model.head(maps)


def count_foreground(matched: Sequence[Tensor]) -> Tensor:
    """Return how many anchors of all images have a box, a scalar.

    Args:
        matched: Per image and anchor the index of its box, -1 for background, (A,).
    """
    return (torch.stack(list(matched)) >= 0).sum().to(torch.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectorSpec(Generic[Config]):
    """A detector: how it is built, and what the rest of the project must know of it.

    Attributes:
        name: As `model.detector.name` calls it.
        levels: The pyramid it works on.
        first_label: What its model calls our label 0; FasterRCNN keeps 0 for background.
        build: Builds its model.
        class_layers: Layers with rows for every class, by name within the model, and the rows of
            one class (and anchor); with a background class it is row 0.
        run_heads: What counts towards its cost besides backbone, FPN and DyHead.
        loss_normalizers: By what its losses are divided where that is not the number of images.
        loss_floors: The least that a loss is divided by, 1 where none is given.
    """

    name: str
    levels: Levels
    first_label: int
    build: BuildModel[Config]
    class_layers: Mapping[str, int]
    run_heads: RunHeads = run_dense_head
    loss_normalizers: LossNormalizers | None = None
    loss_floors: Mapping[str, float] = field(default_factory=dict)
