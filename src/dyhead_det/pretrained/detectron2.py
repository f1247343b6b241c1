"""The authors' four models, in detectron2's format: which model a file holds, and its names.

Source: microsoft/DynamicHead and its `configs/`; Faster R-CNN, RetinaNet and ATSS with ResNet or
Swin backbones.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from dyhead_det.checkpoints.key_mapping import KeyMapping, Rule, UnmappedKey, with_prefix
from dyhead_det.config.schema import (
    ATSSConfig,
    BackboneConfig,
    DetectorConfig,
    DyHeadConfig,
    FasterRCNNConfig,
    InputConfig,
    ModelConfig,
    RetinaNetConfig,
)
from dyhead_det.errors import CheckpointError
from dyhead_det.pretrained.backbones import (
    CAFFE_INPUT,
    IMAGENET_INPUT,
    count_blocks,
    flip_channels,
    num_rows,
    recognize_resnet,
    recognize_swin,
    swin_rules,
)

BACKBONE = "backbone.backbone.bottom_up."
FPN = "backbone.backbone."
OURS = "network."


def is_dyhead(names: Mapping[str, Tensor]) -> bool:
    """Say whether tensors are those of a DyHead model in detectron2's format."""
    return any(name.startswith("backbone.dyhead_tower.") for name in names)


def describe_model(tensors: Mapping[str, Tensor], *, source: str) -> tuple[ModelConfig, int]:
    """Return the configuration of the model that a file holds, and its number of classes.

    Raises:
        CheckpointError: If it is none of the known ones.
    """
    backbone, image_input = _describe_backbone(tensors, source=source)
    detector, num_classes = _describe_detector(tensors, source=source)
    config = ModelConfig(
        detector=detector,
        backbone=backbone,
        channels=num_rows(tensors, f"{FPN}fpn_lateral5.bias", source=source),
        dyhead=DyHeadConfig(
            num_blocks=count_blocks(tensors, "backbone.dyhead_tower."),
            coarse_offsets="flattened",
            zero_init_offsets=False,
            residual=False,
        ),
        input=image_input,
        compat="detectron2",
    )
    return config, num_classes


def build_key_mapping(config: ModelConfig) -> KeyMapping:
    """Return the rules for the names of a model's file."""
    finest_level = 2 if isinstance(config.detector, FasterRCNNConfig) else 3
    backbone_rules = swin_rules("detectron2") if config.backbone.name.startswith("swin") else RESNET
    rules = [
        *with_prefix(BACKBONE, "backbone.body.", backbone_rules),
        *with_prefix(FPN, "backbone.fpn.", _fpn_rules(finest_level)),
        *with_prefix("backbone.dyhead_tower.*.", "backbone.dyhead.blocks.*.", DYHEAD_BLOCK),
        *HEADS[config.detector.name],
    ]
    return KeyMapping(with_prefix("", OURS, rules), DROPPED, FILLED)


def _describe_backbone(
    tensors: Mapping[str, Tensor], *, source: str
) -> tuple[BackboneConfig, InputConfig]:
    if f"{BACKBONE}patch_embed.proj.weight" in tensors:
        name = recognize_swin(
            tensors,
            patches=f"{BACKBONE}patch_embed.proj.weight",
            blocks=f"{BACKBONE}layers.{{stage}}.blocks.*.norm1.weight",
            bias_table=f"{BACKBONE}layers.0.blocks.0.attn.relative_position_bias_table",
            source=source,
        )
        sizes = {"multi_scale": (640, 672, 704, 736, 768, 800)}
        return BackboneConfig(name=name, weights="none"), IMAGENET_INPUT.model_copy(update=sizes)
    name = recognize_resnet(
        tensors,
        stem=f"{BACKBONE}stem.conv1.weight",
        blocks=f"{BACKBONE}res{{stage_plus_1}}.*.conv3.weight",
        source=source,
    )
    return BackboneConfig(name=name, weights="none", stride_in_1x1=True), CAFFE_INPUT


def _describe_detector(tensors: Mapping[str, Tensor], *, source: str) -> tuple[DetectorConfig, int]:
    if "roi_heads.box_predictor.cls_score.weight" in tensors:
        rows = num_rows(tensors, "roi_heads.box_predictor.cls_score.weight", source=source)
        return FasterRCNNConfig(name="fasterrcnn", rpn_post_nms_top_n_train=1000), rows - 1
    if "head.cls_score.weight" in tensors:
        sizes = tuple(
            (side, side * 2 ** (1 / 3), side * 2 ** (2 / 3)) for side in (32, 64, 128, 256, 512)
        )
        num_classes = num_rows(tensors, "head.cls_score.weight", source=source) // 9
        detector = RetinaNetConfig(name="retinanet", anchor_sizes=sizes, detections_per_img=100)
        return detector, num_classes
    if "head.centerness.weight" in tensors and "head.cls_logits.weight" in tensors:
        num_classes = num_rows(tensors, "head.cls_logits.weight", source=source)
        return ATSSConfig(name="atss", clip="after"), num_classes
    raise CheckpointError(
        f"{source}: a DyHead model of detectron2's format, but neither Faster R-CNN, RetinaNet nor "
        "ATSS: no class scores among its tensors"
    )


def background_first(rows: Tensor) -> Tensor:
    """Move the last row, detectron2's background class, to the front, torchvision's."""
    return rows.roll(1, dims=0)


def with_background_boxes(rows: Tensor) -> Tensor:
    """Put four rows of zeros in front: torchvision also has box deltas of background, unused."""
    return torch.cat([torch.zeros_like(rows[:4]), rows])


RESNET = [
    Rule("stem.conv1.weight", "conv1.weight", flip_channels),
    Rule("stem.conv1.norm.%", "bn1.%"),
    *(
        rule
        for stage in (1, 2, 3, 4)
        for rule in with_prefix(
            f"res{stage + 1}.*.",
            f"layer{stage}.*.",
            [
                Rule("conv*.weight", "conv*.weight"),
                Rule("conv*.norm.%", "bn*.%"),
                Rule("shortcut.weight", "downsample.0.weight"),
                Rule("shortcut.norm.%", "downsample.1.%"),
            ],
        )
    ),
]


def _fpn_rules(finest_level: int) -> list[Rule]:
    levels = [
        rule
        for index, level in enumerate(range(finest_level, 6))
        for rule in (
            Rule(f"fpn_lateral{level}.%", f"inner_blocks.{index}.0.%"),
            Rule(f"fpn_output{level}.%", f"layer_blocks.{index}.0.%"),
        )
    ]
    return [*levels, Rule("top_block.p*.%", "extra_blocks.p*.%")]


DYHEAD_BLOCK = [
    *(
        rule
        for index, ours in enumerate(("coarser", "same", "finer"))
        for rule in (
            Rule(f"DyConv.{index}.conv.%", f"{ours}.%"),
            Rule(f"DyConv.{index}.bn.%", f"{ours}.norm.%"),
        )
    ),
    Rule("AttnConv.1.weight", "scale.score.weight", lambda weight: weight.flatten(1)),
    Rule("AttnConv.1.bias", "scale.score.bias"),
    Rule("relu.fc.0.%", "task.squeeze.%"),
    Rule("relu.fc.2.%", "task.expand.%"),
    Rule("offset.%", "offset_and_mask.%"),
]

_PREDICTOR = "roi_heads.box_predictor."

HEADS = {
    "fasterrcnn": [
        Rule("proposal_generator.rpn_head.conv.%", "rpn.head.conv.0.0.%"),
        Rule("proposal_generator.rpn_head.objectness_logits.%", "rpn.head.cls_logits.%"),
        Rule("proposal_generator.rpn_head.anchor_deltas.%", "rpn.head.bbox_pred.%"),
        Rule("roi_heads.box_head.fc1.%", "roi_heads.box_head.fc6.%"),
        Rule("roi_heads.box_head.fc2.%", "roi_heads.box_head.fc7.%"),
        Rule(f"{_PREDICTOR}cls_score.%", f"{_PREDICTOR}cls_score.%", background_first),
        Rule(f"{_PREDICTOR}bbox_pred.%", f"{_PREDICTOR}bbox_pred.%", with_background_boxes),
    ],
    "retinanet": [
        *(
            rule
            for index in range(4)  # convolutions; between them stand the ReLUs
            for rule in (
                Rule(
                    f"head.cls_subnet.{2 * index}.%", f"head.classification_head.conv.{index}.0.%"
                ),
                Rule(f"head.bbox_subnet.{2 * index}.%", f"head.regression_head.conv.{index}.0.%"),
            )
        ),
        Rule("head.cls_score.%", "head.classification_head.cls_logits.%"),
        Rule("head.bbox_pred.%", "head.regression_head.bbox_reg.%"),
    ],
    "atss": [
        Rule("head.cls_logits.%", "head.cls_logits.%"),
        Rule("head.bbox_pred.%", "head.bbox_reg.%"),
        Rule("head.centerness.%", "head.bbox_ctrness.%"),
        Rule("head.scales.*.scale", "head.scales[*]"),
    ],
}

_CELL_ANCHORS = "computed from the anchor sizes"

DROPPED = [
    UnmappedKey("pixel_mean", "part of the configuration"),
    UnmappedKey("pixel_std", "part of the configuration"),
    UnmappedKey("anchor_generator.cell_anchors.*", _CELL_ANCHORS),
    UnmappedKey("proposal_generator.anchor_generator.cell_anchors.*", _CELL_ANCHORS),
    UnmappedKey(f"{BACKBONE}stem.conv1.norm.num_batches_tracked", "counts training steps"),
    UnmappedKey(f"{BACKBONE}res*.*.conv*.norm.num_batches_tracked", "counts training steps"),
    UnmappedKey(f"{BACKBONE}res*.*.shortcut.norm.num_batches_tracked", "counts training steps"),
    UnmappedKey(
        f"{BACKBONE}layers.*.blocks.*.attn.relative_position_index", "computed from the window"
    ),
]

FILLED = [
    UnmappedKey(
        f"{OURS}backbone.body.extractor.features.*.*.attn.relative_position_index",
        "computed from the window",
    ),
]
