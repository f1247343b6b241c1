"""ATSS from its section of the configuration."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from dyhead_det.config.schema import ATSSConfig, Compat
from dyhead_det.models.atss.detector import ATSS, DELTA_WEIGHTS, ATSSHead, SquareAnchors
from dyhead_det.models.atss.loss import TINY, centerness
from dyhead_det.models.backbones.pyramid import P3_TO_P7, DyHeadBackbone, Levels
from dyhead_det.models.compat.box_coder import MmdetBoxCoder
from dyhead_det.models.detector_spec import DetectorSpec, count_foreground


def build_atss(
    config: ATSSConfig,
    *,
    backbone: DyHeadBackbone,
    levels: Levels,
    transform: GeneralizedRCNNTransform,
    num_classes: int,
    compat: Compat,
) -> ATSS:
    """Build the model; see `BuildModel` for the arguments."""
    box_coder = MmdetBoxCoder if compat == "mmdet" else BoxCoder
    return ATSS(
        backbone,
        transform=transform,
        anchor_generator=SquareAnchors(levels.strides, anchor_offset=config.anchor_offset),
        head=ATSSHead(
            backbone.out_channels,
            num_classes,
            num_levels=len(levels.names),
            num_tower_convs=config.num_tower_convs,
            prediction_kernel=config.prediction_kernel,
        ),
        box_coder=box_coder(DELTA_WEIGHTS),
        num_candidates=config.num_candidates,
        score_thresh=config.score_thresh,
        nms_thresh=config.nms_thresh,
        detections_per_img=config.detections_per_img,
        topk_candidates=config.topk_candidates,
        topk_by=config.topk_by,
        clip=config.clip,
    )


def _loss_normalizers(
    model: ATSS,
    targets: Sequence[Mapping[str, Tensor]],
    anchors: Sequence[Tensor],
    num_anchors_per_level: Sequence[int],
) -> dict[str, Tensor]:
    """Return the number of foreground anchors, and the sum of their weights for the box loss."""
    matched = model.match(targets, anchors, num_anchors_per_level)
    num_foreground = count_foreground(matched)
    weights = [
        centerness(image_anchors[match >= 0], target["boxes"][match[match >= 0]]).sum()
        for target, image_anchors, match in zip(targets, anchors, matched, strict=True)
    ]
    return {
        "classification": num_foreground,
        "bbox_regression": torch.stack(weights).sum(),
        "bbox_ctrness": num_foreground,
    }


ATSS_SPEC = DetectorSpec(
    name="atss",
    levels=P3_TO_P7,
    first_label=0,
    build=build_atss,
    class_layers={"head.cls_logits": 1},
    loss_normalizers=_loss_normalizers,
    loss_floors={"bbox_regression": TINY},
)
