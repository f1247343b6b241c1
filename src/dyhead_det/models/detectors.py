"""Configuration -> detector: the only owner of label numbering and of torchvision's keywords.

Torchvision's FasterRCNN keeps label 0 for background while its RetinaNet trains on it; it also
swallows misspelled keywords. Both stay in this file: outside, labels are 0..K-1.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from dyhead_det.config.schema import (
    ATSSConfig,
    FasterRCNNConfig,
    FCOSConfig,
    InputConfig,
    ModelConfig,
    RetinaNetConfig,
)
from dyhead_det.contracts import Prediction, Target
from dyhead_det.models.atss.detector import ATSS, ATSSHead, SquareAnchors
from dyhead_det.models.backbones.pyramid import (
    P2_TO_P6,
    P3_TO_P7,
    DyHeadBackbone,
    Levels,
    build_dyhead_backbone,
)
from dyhead_det.models.compat.detectors import with_compat_conventions
from dyhead_det.models.image_seeds import seed_by_image
from dyhead_det.ops.gather.products import FastLinear
from dyhead_det.ops.roi_align import PyramidRoIAlign

# What torchvision pads batches to when nobody asks for more.
TORCHVISION_SIZE_DIVISIBLE = 32

LEVELS: dict[str, Levels] = {
    "fasterrcnn": P2_TO_P6,
    "retinanet": P3_TO_P7,
    "fcos": P3_TO_P7,
    "atss": P3_TO_P7,
}


class BoxHead(nn.Module):
    """Torchvision's TwoMLPHead with faster products; the same names of weights."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.fc6 = FastLinear(in_channels, channels)
        self.fc7 = FastLinear(channels, channels)

    def forward(self, pooled: Tensor) -> Tensor:
        """Turn regions (N, C, H, W), where C * H * W is `in_channels`, into (N, channels)."""
        return F.relu(self.fc7(F.relu(self.fc6(pooled.flatten(1)))))


class Detector(nn.Module):
    """A torchvision detector whose labels are 0..K-1.

    Attributes:
        network: Torchvision's detector.
        num_classes: K.
        first_label: What `network` calls label 0.
        image_seeds: What random choices of `network` follow from in training.
    """

    def __init__(self, network: nn.Module, *, num_classes: int, first_label: int) -> None:
        super().__init__()
        self.network = network
        self.num_classes = num_classes
        self.first_label = first_label
        self.image_seeds = seed_by_image(network)
        if isinstance(network, FasterRCNN):
            network.roi_heads.add_gt_proposals = _proposals_to_learn_from

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
        """What resizes, normalises and pads."""
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
        """
        if not self.training:
            return [self._to_ours(prediction) for prediction in self.network(images)]
        if targets is None:
            msg = "training mode needs targets; call .eval() to predict"
            raise ValueError(msg)
        self.image_seeds.start(seed, targets)
        losses: dict[str, Tensor] = self.network(images, self.to_torchvision(targets))
        return losses

    def set_test_size(self, *, short_edge: int, long_edge: int) -> None:
        """Change the size that images are resized to in evaluation mode, in pixels."""
        self.transform.min_size = (short_edge,)
        self.transform.max_size = long_edge

    def to_torchvision(self, targets: list[Target]) -> list[dict[str, Tensor]]:
        """Return copies with torchvision's label numbers.

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
    config: ModelConfig, *, num_classes: int, load_backbone_weights: bool
) -> Detector:
    """Build the detector that a configuration describes.

    Args:
        config: The model section of a run.
        num_classes: K, without background.
        load_backbone_weights: False where a checkpoint brings all weights.

    Raises:
        ConfigError: If the backbone cannot be built.
        CheckpointError: If the backbone's weights cannot be had or do not fit.
    """
    levels = LEVELS[config.detector.name]
    backbone = build_dyhead_backbone(config, levels, load_backbone_weights=load_backbone_weights)
    if config.input.pad_to_multiple is not None:
        size_divisible = config.input.pad_to_multiple
    elif config.dyhead is None:
        size_divisible = TORCHVISION_SIZE_DIVISIBLE
    else:  # DyHead needs levels that halve exactly
        size_divisible = levels.strides[-1]
    detector = _build(config, backbone, num_classes, size_divisible)
    if config.compat != "none":
        network = with_compat_conventions(detector.network, config)
        return Detector(network, num_classes=num_classes, first_label=detector.first_label)
    return detector


def _build(
    config: ModelConfig, backbone: DyHeadBackbone, num_classes: int, size_divisible: int
) -> Detector:
    if isinstance(config.detector, FasterRCNNConfig):
        return _build_fasterrcnn(
            config.detector, config.input, backbone, num_classes, size_divisible
        )
    if isinstance(config.detector, RetinaNetConfig):
        return _build_retinanet(
            config.detector, config.input, backbone, num_classes, size_divisible
        )
    if isinstance(config.detector, FCOSConfig):
        return _build_fcos(config.detector, config.input, backbone, num_classes, size_divisible)
    return _build_atss(config.detector, config.input, backbone, num_classes, size_divisible)


def _build_fasterrcnn(
    config: FasterRCNNConfig,
    input_config: InputConfig,
    backbone: DyHeadBackbone,
    num_classes: int,
    size_divisible: int,
) -> Detector:
    # P6 is for the proposals only.
    roi_align = PyramidRoIAlign(
        backbone.levels.names[:-1], finest_level=2, output_size=7, sampling_ratio=2
    )
    box_head = BoxHead(
        backbone.out_channels * roi_align.output_size[0] ** 2, config.box_head_channels
    )
    network = FasterRCNN(
        backbone,
        min_size=_sizes(input_config),
        max_size=input_config.long_edge,
        image_mean=list(input_config.mean),
        image_std=list(input_config.std),
        size_divisible=size_divisible,
        rpn_anchor_generator=_anchor_generator(config),
        rpn_pre_nms_top_n_train=config.rpn_pre_nms_top_n_train,
        rpn_pre_nms_top_n_test=config.rpn_pre_nms_top_n_test,
        rpn_post_nms_top_n_train=config.rpn_post_nms_top_n_train,
        rpn_post_nms_top_n_test=config.rpn_post_nms_top_n_test,
        rpn_nms_thresh=config.rpn_nms_thresh,
        rpn_fg_iou_thresh=config.rpn_fg_iou_thresh,
        rpn_bg_iou_thresh=config.rpn_bg_iou_thresh,
        rpn_batch_size_per_image=config.rpn_batch_size_per_image,
        rpn_positive_fraction=config.rpn_positive_fraction,
        rpn_score_thresh=config.rpn_score_thresh,
        box_roi_pool=roi_align,
        box_head=box_head,
        box_predictor=FastRCNNPredictor(config.box_head_channels, num_classes + 1),
        box_score_thresh=config.box_score_thresh,
        box_nms_thresh=config.box_nms_thresh,
        box_detections_per_img=config.box_detections_per_img,
        box_fg_iou_thresh=config.box_fg_iou_thresh,
        box_bg_iou_thresh=config.box_bg_iou_thresh,
        box_batch_size_per_image=config.box_batch_size_per_image,
        box_positive_fraction=config.box_positive_fraction,
    )
    return Detector(network, num_classes=num_classes, first_label=1)


def _build_retinanet(
    config: RetinaNetConfig,
    input_config: InputConfig,
    backbone: DyHeadBackbone,
    num_classes: int,
    size_divisible: int,
) -> Detector:
    network = RetinaNet(
        backbone,
        num_classes,
        min_size=_sizes(input_config),
        max_size=input_config.long_edge,
        image_mean=list(input_config.mean),
        image_std=list(input_config.std),
        size_divisible=size_divisible,
        anchor_generator=_anchor_generator(config),
        score_thresh=config.score_thresh,
        nms_thresh=config.nms_thresh,
        detections_per_img=config.detections_per_img,
        fg_iou_thresh=config.fg_iou_thresh,
        bg_iou_thresh=config.bg_iou_thresh,
        topk_candidates=config.topk_candidates,
    )
    return Detector(network, num_classes=num_classes, first_label=0)


def _build_fcos(
    config: FCOSConfig,
    input_config: InputConfig,
    backbone: DyHeadBackbone,
    num_classes: int,
    size_divisible: int,
) -> Detector:
    network = FCOS(
        backbone,
        num_classes,
        min_size=_sizes(input_config),
        max_size=input_config.long_edge,
        image_mean=list(input_config.mean),
        image_std=list(input_config.std),
        size_divisible=size_divisible,
        center_sampling_radius=config.center_sampling_radius,
        score_thresh=config.score_thresh,
        nms_thresh=config.nms_thresh,
        detections_per_img=config.detections_per_img,
        topk_candidates=config.topk_candidates,
    )
    return Detector(network, num_classes=num_classes, first_label=0)


def _build_atss(
    config: ATSSConfig,
    input_config: InputConfig,
    backbone: DyHeadBackbone,
    num_classes: int,
    size_divisible: int,
) -> Detector:
    network = ATSS(
        backbone,
        transform=GeneralizedRCNNTransform(
            min_size=_sizes(input_config),
            max_size=input_config.long_edge,
            image_mean=list(input_config.mean),
            image_std=list(input_config.std),
            size_divisible=size_divisible,
        ),
        anchor_generator=SquareAnchors(backbone.levels.strides, anchor_offset=config.anchor_offset),
        head=ATSSHead(
            backbone.out_channels,
            num_classes,
            num_levels=len(backbone.levels.names),
            num_tower_convs=config.num_tower_convs,
            prediction_kernel=config.prediction_kernel,
        ),
        num_candidates=config.num_candidates,
        score_thresh=config.score_thresh,
        nms_thresh=config.nms_thresh,
        detections_per_img=config.detections_per_img,
        topk_candidates=config.topk_candidates,
        topk_by=config.topk_by,
        clip=config.clip,
    )
    return Detector(network, num_classes=num_classes, first_label=0)


def _proposals_to_learn_from(proposals: list[Tensor], boxes: list[Tensor]) -> list[Tensor]:
    """Add the true boxes of an image to its proposals, as torchvision does; leave none without any.

    Without a single proposal, as `rpn_score_thresh` may leave it, the losses would be NaN; a pixel
    of an image without objects is an example of background.
    """
    joined = [torch.cat(pair) for pair in zip(proposals, boxes, strict=True)]
    return [found if len(found) else found.new_tensor([[0, 0, 1, 1]]) for found in joined]


def _sizes(config: InputConfig) -> tuple[int, ...]:
    """Return the short edges to draw from in training; torchvision takes the last at test time."""
    return (*(s for s in config.multi_scale if s != config.short_edge), config.short_edge)


def _anchor_generator(config: FasterRCNNConfig | RetinaNetConfig) -> AnchorGenerator:
    """Return anchors of `anchor_sizes` at every ratio (height / width), per level."""
    ratios: Sequence[tuple[float, ...]] = (config.anchor_ratios,) * len(config.anchor_sizes)
    return AnchorGenerator(config.anchor_sizes, tuple(ratios))
