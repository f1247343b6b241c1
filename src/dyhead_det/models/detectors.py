"""Configuration -> detector: the only owner of label numbering and of the list of detectors.

A detector in outline:

    Detector                         labels 0..K-1, image seeds
    `- network                       torchvision's model, or one that is called like it
       |- transform                  DetectorTransform: resize, normalize, pad; boxes back
       |- backbone                   DyHeadBackbone
       |  |- body                    classifier cut into C2..C5 (backbones/)
       |  |- fpn                     P2..P6 (fasterrcnn) or P3..P7 (the others)
       |  `- dyhead                  DyHead, StackedDyHead, or nothing
       `- rpn, roi_heads | head      by the detector's own file: fasterrcnn, retinanet, fcos, atss

Torchvision's FasterRCNN keeps label 0 for background while its RetinaNet trains on it; it also
swallows misspelled keywords. Neither leaves `models/`: outside, labels are 0..K-1.
"""

import logging
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from dyhead_det.config.schema import Compat, InputConfig, ModelConfig
from dyhead_det.contracts import Prediction, Target
from dyhead_det.models.atss.spec import ATSS_SPEC
from dyhead_det.models.backbones.pyramid import (
    DyHeadBackbone,
    build_dyhead_backbone,
    wrap_backbone,
)
from dyhead_det.models.check_boxes import check_boxes
from dyhead_det.models.compat.transform import CompatTransform
from dyhead_det.models.detector_spec import DetectorSpec
from dyhead_det.models.fasterrcnn import FASTERRCNN_SPEC
from dyhead_det.models.fcos import FCOS_SPEC
from dyhead_det.models.image_seeds import seed_by_image
from dyhead_det.models.retinanet import RETINANET_SPEC
from dyhead_det.models.transform import DetectorTransform

logger = logging.getLogger(__name__)

# What torchvision pads batches to when nobody asks for more.
TORCHVISION_SIZE_DIVISIBLE = 32

# Every detector by its name in a configuration; a new one is its own file and one line here.
DETECTORS: dict[str, DetectorSpec[Any]] = {
    spec.name: spec for spec in (FASTERRCNN_SPEC, RETINANET_SPEC, FCOS_SPEC, ATSS_SPEC)
}


class Detector(nn.Module):
    """A torchvision detector whose labels are 0..K-1.

    Attributes:
        network: Torchvision's model, or one that is called like it.
        spec: What kind of detector it is.
        num_classes: K.
        image_seeds: What random choices of `network` follow from in training.
    """

    def __init__(self, model: nn.Module, *, spec: DetectorSpec[Any], num_classes: int) -> None:
        super().__init__()
        self.network = model  # checkpoints have this name
        self.spec = spec
        self.num_classes = num_classes
        self.image_seeds = seed_by_image(model)

    @property
    def first_label(self) -> int:
        """What `network` calls label 0."""
        return self.spec.first_label

    @property
    def backbone(self) -> DyHeadBackbone:
        """Backbone, FPN and DyHead."""
        backbone = self.network.backbone
        if not isinstance(backbone, DyHeadBackbone):
            msg = f"expected a DyHeadBackbone, got {type(backbone).__name__}"
            raise TypeError(msg)
        return backbone

    @property
    def transform(self) -> GeneralizedRCNNTransform:
        """What resizes, normalizes and pads."""
        return self.network.transform

    def forward(
        self,
        images: list[Tensor],
        targets: list[Target] | None = None,
        *,
        seed: int | None = None,
    ) -> dict[str, Tensor] | list[Prediction]:
        """Return the losses by name in training mode, else the predictions.

        Args:
            images: B images (3, H, W), float RGB in [0, 1], of any sizes.
            targets: B targets in the images' own pixels; needed in training mode.
            seed: What the training size and the samples of an image follow from, with its
                `image_id`; without it they follow from PyTorch's global generator.

        Returns:
            In training mode scalars by name, whose sum is minimized; else one prediction per
            image, in the image's own pixels, best first.

        Raises:
            ValueError: In training mode without targets.
            AssertionError: A box has no area, or is no number.
        """
        if not self.training:
            return [self._to_ours(prediction) for prediction in self.network(images)]
        if targets is None:
            msg = "training mode needs targets; call .eval() to predict"
            raise ValueError(msg)
        check_boxes([target["boxes"] for target in targets])
        self.image_seeds.start(seed, targets)
        losses: dict[str, Tensor] = self.network(images, self.to_torchvision(targets))
        return losses

    def set_test_size(self, *, short_edge: int, long_edge: int) -> None:
        """Change the size that images are resized to in evaluation mode, in pixels."""
        self.transform.min_size = (short_edge,)
        self.transform.max_size = long_edge

    def to_torchvision(self, targets: list[Target]) -> list[dict[str, Tensor]]:
        """Return copies with the model's label numbers.

        Forgetting this raises no error for FasterRCNN; class 0 silently trains as background.
        """
        return [
            {"boxes": target["boxes"], "labels": target["labels"] + self.first_label}
            for target in targets
        ]

    def _to_ours(self, prediction: dict[str, Tensor]) -> Prediction:
        return Prediction(
            boxes=prediction["boxes"],
            scores=prediction["scores"],
            labels=prediction["labels"] - self.first_label,
        )


def build_detector(
    config: ModelConfig,
    num_classes: int,
    *,
    backbone: nn.Module | None = None,
    spec: DetectorSpec[Any] | None = None,
    load_backbone_weights: bool = True,
) -> Detector:
    """Build the detector that a configuration describes.

    Args:
        config: The model section of a run.
        num_classes: K, without background.
        backbone: A module of your own in place of the configured backbone and FPN: images
            (B, 3, H, W) to an ordered dict of maps, fine to coarse, with `out_channels`. The
            configured DyHead is put behind it.
        spec: A detector of your own in place of the one that `config.detector` names.
        load_backbone_weights: False where a checkpoint brings all weights.

    Raises:
        ConfigError: If the backbone cannot be built, or has other channels than the configuration.
        CheckpointError: If the backbone's weights cannot be had or do not fit.
        TypeError: If `backbone` has no `out_channels`, or does not return maps by name.
        ValueError: If the maps of `backbone` are not those of the detector's levels.
    """
    spec = spec or DETECTORS[config.detector.name]
    if backbone is None:
        pyramid = build_dyhead_backbone(
            config, spec.levels, load_backbone_weights=load_backbone_weights
        )
    else:
        if "backbone" in config.model_fields_set:
            logger.warning("model.backbone has no effect: a backbone was given")
        pyramid = wrap_backbone(backbone, config, spec.levels)
    model = spec.build(
        config.detector,
        backbone=pyramid,
        levels=spec.levels,
        transform=transform_of_model(config, spec),
        num_classes=num_classes,
        compat=config.compat,
    )
    return Detector(model, spec=spec, num_classes=num_classes)


def _size_divisible(config: ModelConfig, spec: DetectorSpec[Any]) -> int:
    """Return what the sides of a batch are padded to a multiple of."""
    if config.input.pad_to_multiple is not None:
        return config.input.pad_to_multiple
    if config.dyhead is None:
        return TORCHVISION_SIZE_DIVISIBLE
    return spec.levels.strides[-1]  # DyHead needs levels that halve exactly


def transform_of_model(
    config: ModelConfig, spec: DetectorSpec[Any] | None = None
) -> DetectorTransform:
    """Build what brings images into the form that a detector takes; see `build_detector`."""
    spec = spec or DETECTORS[config.detector.name]
    size_divisible = _size_divisible(config, spec)
    return build_transform(config.input, size_divisible=size_divisible, compat=config.compat)


def build_transform(
    config: InputConfig, *, size_divisible: int, compat: Compat
) -> DetectorTransform:
    """Build what brings images into the form that the backbone takes, and boxes back."""
    # Torchvision takes the last size at test time.
    short_edges = (*(s for s in config.multi_scale if s != config.short_edge), config.short_edge)
    if compat == "none":
        return DetectorTransform(
            short_edges=short_edges,
            long_edge=config.long_edge,
            mean=config.mean,
            std=config.std,
            size_divisible=size_divisible,
        )
    return CompatTransform(
        short_edges=short_edges,
        long_edge=config.long_edge,
        mean=config.mean,
        std=config.std,
        size_divisible=size_divisible,
        resize=config.resize,
        compat=compat,
    )
