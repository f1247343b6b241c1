"""FCOS: torchvision's, with group norms for any number of channels."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection import _utils as det_utils
from torchvision.models.detection.fcos import (
    FCOSClassificationHead,
    FCOSHead,
    FCOSRegressionHead,
)
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from dyhead_det.config.schema import Compat, FCOSConfig
from dyhead_det.models.anchors import build_anchor_generator
from dyhead_det.models.backbones.pyramid import P3_TO_P7, DyHeadBackbone, Levels
from dyhead_det.models.detector_spec import DetectorSpec, count_foreground
from dyhead_det.models.full_precision import return_full_precision
from dyhead_det.models.group_norm import build_group_norm
from dyhead_det.models.matchers import match_fcos

# One point per position.
_NUM_ANCHORS = 1
_LOSSES = ("classification", "bbox_regression", "bbox_ctrness")


class AnySizeFCOSHead(FCOSHead):  # type: ignore[misc]  # untyped base
    """Torchvision's head, weight by weight, but with norms that take what its own refuse.

    Those are 32 groups: an error with channels that 32 does not divide, and with 32 channels on the
    P7 of a small image, a single pixel.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        nn.Module.__init__(self)  # torchvision's constructor does not take a norm
        self.box_coder = det_utils.BoxLinearCoder(normalize_by_size=True)
        self.classification_head = FCOSClassificationHead(
            in_channels, _NUM_ANCHORS, num_classes, norm_layer=build_group_norm
        )
        self.regression_head = FCOSRegressionHead(
            in_channels, _NUM_ANCHORS, norm_layer=build_group_norm
        )


def build_fcos(
    config: FCOSConfig,
    *,
    backbone: DyHeadBackbone,
    levels: Levels,
    transform: GeneralizedRCNNTransform,
    num_classes: int,
    compat: Compat,
) -> FCOS:
    """Build the model; see `BuildModel` for the arguments."""
    del compat  # the configuration refuses other conventions than torchvision's
    sides = [(float(stride),) for stride in levels.strides]
    model = FCOS(
        backbone,
        num_classes,
        anchor_generator=build_anchor_generator(sides, (1.0,), compat="none"),
        head=AnySizeFCOSHead(backbone.out_channels, num_classes),
        center_sampling_radius=config.center_sampling_radius,
        score_thresh=config.score_thresh,
        nms_thresh=config.nms_thresh,
        detections_per_img=config.detections_per_img,
        topk_candidates=config.topk_candidates,
    )
    model.transform = transform
    return_full_precision(model.head)
    return model


def _loss_normalizers(
    model: FCOS,
    targets: Sequence[Mapping[str, Tensor]],
    anchors: Sequence[Tensor],
    num_anchors_per_level: Sequence[int],
) -> dict[str, Tensor]:
    """Return the number of foreground points, which all three losses are divided by."""
    matched = [
        match_fcos(
            image_anchors,
            target["boxes"],
            num_anchors_per_level=num_anchors_per_level,
            center_sampling_radius=model.center_sampling_radius,
        )
        for image_anchors, target in zip(anchors, targets, strict=True)
    ]
    return dict.fromkeys(_LOSSES, count_foreground(matched))


FCOS_SPEC = DetectorSpec(
    name="fcos",
    levels=P3_TO_P7,
    first_label=0,
    build=build_fcos,
    class_layers={"head.classification_head.cls_logits": 1},
    loss_normalizers=_loss_normalizers,
)
