"""Faster R-CNN: torchvision's parts, or detectron2's variants of three of them, put together."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from dyhead_det.config.schema import Compat, FasterRCNNConfig
from dyhead_det.models.anchors import build_anchor_generator
from dyhead_det.models.backbones.pyramid import P2_TO_P6, DyHeadBackbone, Levels
from dyhead_det.models.compat.fasterrcnn import (
    Detectron2RegionProposalNetwork,
    Detectron2RoIAlign,
    Detectron2RoIHeads,
)
from dyhead_det.models.detector_spec import DetectorSpec
from dyhead_det.models.full_precision import return_full_precision
from dyhead_det.ops.gather.products import FastLinear
from dyhead_det.ops.roi_align import PyramidRoIAlign

# The side of a pooled region, in bins.
_POOLED_SIZE = 7


class BoxHead(nn.Module):
    """Torchvision's TwoMLPHead with faster products; the same names of weights."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.fc6 = FastLinear(in_channels, channels)
        self.fc7 = FastLinear(channels, channels)

    def forward(self, pooled: Tensor) -> Tensor:
        """Turn regions (N, C, H, W), where C * H * W is `in_channels`, into (N, channels)."""
        return F.relu(self.fc7(F.relu(self.fc6(pooled.flatten(1)))))


def build_fasterrcnn(
    config: FasterRCNNConfig,
    *,
    backbone: DyHeadBackbone,
    levels: Levels,
    transform: GeneralizedRCNNTransform,
    num_classes: int,
    compat: Compat,
) -> GeneralizedRCNN:
    """Build the model: what torchvision's FasterRCNN is, with the classes that `compat` asks for.

    See `BuildModel` for the arguments.
    """
    roi_heads = _build_roi_heads(
        config, backbone.out_channels, levels=levels, num_classes=num_classes, compat=compat
    )
    rpn = _build_rpn(config, backbone.out_channels, compat=compat)
    for head in (rpn.head, roi_heads.box_predictor):
        return_full_precision(head)
    return GeneralizedRCNN(backbone, rpn, roi_heads, transform)


def _build_rpn(
    config: FasterRCNNConfig, in_channels: int, *, compat: Compat
) -> RegionProposalNetwork:
    anchor_generator = build_anchor_generator(
        config.anchor_sizes, config.anchor_ratios, compat=compat
    )
    rpn = RegionProposalNetwork if compat == "none" else Detectron2RegionProposalNetwork
    return rpn(
        anchor_generator,
        RPNHead(in_channels, anchor_generator.num_anchors_per_location()[0]),
        fg_iou_thresh=config.rpn_fg_iou_thresh,
        bg_iou_thresh=config.rpn_bg_iou_thresh,
        batch_size_per_image=config.rpn_batch_size_per_image,
        positive_fraction=config.rpn_positive_fraction,
        pre_nms_top_n={
            "training": config.rpn_pre_nms_top_n_train,
            "testing": config.rpn_pre_nms_top_n_test,
        },
        post_nms_top_n={
            "training": config.rpn_post_nms_top_n_train,
            "testing": config.rpn_post_nms_top_n_test,
        },
        nms_thresh=config.rpn_nms_thresh,
        score_thresh=config.rpn_score_thresh,
    )


def _build_roi_heads(
    config: FasterRCNNConfig,
    in_channels: int,
    *,
    levels: Levels,
    num_classes: int,
    compat: Compat,
) -> RoIHeads:
    roi_heads = RoIHeads if compat == "none" else Detectron2RoIHeads
    heads = roi_heads(
        box_roi_pool=_build_roi_align(levels, compat=compat),
        box_head=BoxHead(in_channels * _POOLED_SIZE**2, config.box_head_channels),
        box_predictor=FastRCNNPredictor(config.box_head_channels, num_classes + 1),
        fg_iou_thresh=config.box_fg_iou_thresh,
        bg_iou_thresh=config.box_bg_iou_thresh,
        batch_size_per_image=config.box_batch_size_per_image,
        positive_fraction=config.box_positive_fraction,
        bbox_reg_weights=None,  # (10, 10, 5, 5)
        score_thresh=config.box_score_thresh,
        nms_thresh=config.box_nms_thresh,
        detections_per_img=config.box_detections_per_img,
    )
    heads.add_gt_proposals = _proposals_to_learn_from
    return heads


def _build_roi_align(levels: Levels, *, compat: Compat) -> nn.Module:
    region_levels = levels.names[:-1]  # the coarsest is for the proposals only
    if compat == "none":
        return PyramidRoIAlign(
            region_levels, finest_level=levels.finest, output_size=_POOLED_SIZE, sampling_ratio=2
        )
    return Detectron2RoIAlign(
        region_levels, finest_level=levels.finest, output_size=(_POOLED_SIZE, _POOLED_SIZE)
    )


def _proposals_to_learn_from(proposals: list[Tensor], boxes: list[Tensor]) -> list[Tensor]:
    """Add the true boxes of an image to its proposals, as torchvision does; leave none without any.

    Without a single proposal, as `rpn_score_thresh` may leave it, the losses would be NaN; a pixel
    of an image without objects is an example of background.
    """
    with_boxes = [torch.cat(pair) for pair in zip(proposals, boxes, strict=True)]
    return [each if len(each) else each.new_tensor([[0, 0, 1, 1]]) for each in with_boxes]


def _run_heads(model: GeneralizedRCNN, maps: list[Tensor]) -> None:
    """Run the RPN's head, and the box head for the most proposals that it may get."""
    model.rpn.head(maps)
    num_proposals, channels = model.rpn.post_nms_top_n(), model.backbone.out_channels
    pooled = torch.zeros(num_proposals, channels, _POOLED_SIZE, _POOLED_SIZE)
    model.roi_heads.box_predictor(model.roi_heads.box_head(pooled))


FASTERRCNN_SPEC = DetectorSpec(
    name="fasterrcnn",
    levels=P2_TO_P6,
    first_label=1,
    build=build_fasterrcnn,
    class_layers={
        "roi_heads.box_predictor.cls_score": 1,
        "roi_heads.box_predictor.bbox_pred": 4,
    },
    run_heads=_run_heads,
)
