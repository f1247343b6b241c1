"""mmdetection's ATSS models with DyHead: which model a file holds, and its names.

Three are published: `atss_r50_fpn_dyhead`, `atss_r50-caffe_fpn_dyhead` and `atss_swin-l`. A caffe
and an ordinary ResNet-50 have the same names and shapes; the first was published with prediction
convolutions of 1x1, the second of 3x3, and that tells which one a file holds.
"""

from collections.abc import Mapping

from torch import Tensor

from dyhead_det.checkpoints.key_mapping import KeyMapping, Rule, UnmappedKey, with_prefix
from dyhead_det.config.schema import (
    ATSSConfig,
    BackboneConfig,
    DyHeadConfig,
    InputConfig,
    ModelConfig,
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

OURS = "network."


def is_dyhead(names: Mapping[str, Tensor]) -> bool:
    """Say whether tensors are those of a DyHead model in mmdetection's format."""
    return any(name.startswith("neck.1.dyhead_blocks.") for name in names)


def describe_model(tensors: Mapping[str, Tensor], *, source: str) -> tuple[ModelConfig, int]:
    """Return the configuration of the model that a file holds, and its number of classes.

    Raises:
        CheckpointError: If it is none of the known ones.
    """
    if "bbox_head.atss_cls.weight" not in tensors:
        heads = sorted({name.split(".")[1] for name in tensors if name.startswith("bbox_head.")})
        raise CheckpointError(
            f"{source}: a DyHead model of mmdetection, but its head is not ATSS without towers; it "
            f"has {', '.join(heads) or 'no bbox_head'}"
        )
    num_classes = num_rows(tensors, "bbox_head.atss_cls.weight", source=source)
    kernel = tensors["bbox_head.atss_cls.weight"].shape[-1]
    follows_authors = kernel == 1  # as the two that reproduce the authors' settings
    backbone, image_input = _describe_backbone(
        tensors, follows_authors=follows_authors, source=source
    )
    config = ModelConfig(
        detector=ATSSConfig(
            name="atss",
            prediction_kernel=1 if follows_authors else 3,
            anchor_offset=0.5 if follows_authors else 0.0,
            topk_by="class_score",
            clip="before_nms",
        ),
        backbone=backbone,
        channels=num_rows(tensors, "neck.0.lateral_convs.0.conv.bias", source=source),
        dyhead=DyHeadConfig(
            num_blocks=count_blocks(tensors, "neck.1.dyhead_blocks."),
            coarse_offsets="cropped",
            zero_init_offsets=not follows_authors,
            residual=False,
        ),
        input=image_input,
        compat="mmdet",
    )
    return config, num_classes


def build_key_mapping(config: ModelConfig) -> KeyMapping:
    """Return the rules for the names of a model's file."""
    if config.backbone.name.startswith("swin"):
        backbone_rules = swin_rules("mmdet")
    elif config.backbone.stride_in_1x1:  # caffe's weights are for BGR images
        backbone_rules = [Rule("conv1.weight", "conv1.weight", flip_channels), *RESNET]
    else:
        backbone_rules = RESNET
    rules = [
        *with_prefix("backbone.", "backbone.body.", backbone_rules),
        *FPN,
        *with_prefix("neck.1.dyhead_blocks.*.", "backbone.dyhead.blocks.*.", DYHEAD_BLOCK),
        *HEAD,
    ]
    return KeyMapping(with_prefix("", OURS, rules), DROPPED, FILLED)


def _describe_backbone(
    tensors: Mapping[str, Tensor], *, follows_authors: bool, source: str
) -> tuple[BackboneConfig, InputConfig]:
    if "backbone.patch_embed.projection.weight" in tensors:
        name = recognize_swin(
            tensors,
            patches="backbone.patch_embed.projection.weight",
            blocks="backbone.stages.{stage}.blocks.*.norm1.weight",
            bias_table="backbone.stages.0.blocks.0.attn.w_msa.relative_position_bias_table",
            source=source,
        )
        # The original draws any shorter edge from 480 to 1200 in training.
        sizes = {"short_edge": 1200, "long_edge": 2000, "multi_scale": tuple(range(480, 1201, 80))}
        return BackboneConfig(name=name, weights="none"), IMAGENET_INPUT.model_copy(update=sizes)
    name = recognize_resnet(
        tensors,
        stem="backbone.conv1.weight",
        blocks="backbone.layer{stage}.*.conv3.weight",
        source=source,
    )
    if follows_authors:
        caffe_backbone = BackboneConfig(
            name=name, weights="none", frozen_stages=1, stride_in_1x1=True
        )
        return caffe_backbone, CAFFE_INPUT
    image_input = IMAGENET_INPUT.model_copy(update={"resize": "cv2", "pad_to_multiple": 32})
    return BackboneConfig(name=name, weights="none", frozen_stages=1), image_input


RESNET = [
    Rule("conv1.%", "conv1.%"),
    Rule("bn1.%", "bn1.%"),
    Rule("layer*.*.conv*.%", "layer*.*.conv*.%"),
    Rule("layer*.*.bn*.%", "layer*.*.bn*.%"),
    Rule("layer*.*.downsample.*.%", "layer*.*.downsample.*.%"),
]

FPN = [
    Rule("neck.0.lateral_convs.*.conv.%", "backbone.fpn.inner_blocks.*.0.%"),
    Rule("neck.0.fpn_convs.3.conv.%", "backbone.fpn.extra_blocks.p6.%"),
    Rule("neck.0.fpn_convs.4.conv.%", "backbone.fpn.extra_blocks.p7.%"),
    Rule("neck.0.fpn_convs.*.conv.%", "backbone.fpn.layer_blocks.*.0.%"),
]

DYHEAD_BLOCK = [
    *(
        rule
        for theirs, ours in (("high", "coarser"), ("mid", "same"), ("low", "finer"))
        for rule in (
            Rule(f"spatial_conv_{theirs}.conv.weight", f"{ours}.weight"),
            Rule(f"spatial_conv_{theirs}.norm.%", f"{ours}.norm.%"),
        )
    ),
    Rule("spatial_conv_offset.%", "offset_and_mask.%"),
    Rule("scale_attn_module.1.weight", "scale.score.weight", lambda weight: weight.flatten(1)),
    Rule("scale_attn_module.1.bias", "scale.score.bias"),
    Rule("task_attn_module.conv1.conv.weight", "task.squeeze.weight", lambda w: w.flatten(1)),
    Rule("task_attn_module.conv1.conv.bias", "task.squeeze.bias"),
    Rule("task_attn_module.conv2.conv.weight", "task.expand.weight", lambda w: w.flatten(1)),
    Rule("task_attn_module.conv2.conv.bias", "task.expand.bias"),
]

HEAD = [
    Rule("bbox_head.atss_cls.%", "head.cls_logits.%"),
    Rule("bbox_head.atss_reg.%", "head.bbox_reg.%"),
    Rule("bbox_head.atss_centerness.%", "head.bbox_ctrness.%"),
    Rule("bbox_head.scales.*.scale", "head.scales[*]"),
]

DROPPED = [
    UnmappedKey("data_preprocessor.%", "part of the configuration"),
    UnmappedKey("backbone.bn1.num_batches_tracked", "counts training steps"),
    UnmappedKey("backbone.layer*.*.bn*.num_batches_tracked", "counts training steps"),
    UnmappedKey("backbone.layer*.*.downsample.1.num_batches_tracked", "counts training steps"),
    UnmappedKey(
        "backbone.stages.*.blocks.*.attn.w_msa.relative_position_index", "computed from the window"
    ),
]

FILLED = [
    *(
        UnmappedKey(
            f"{OURS}backbone.dyhead.blocks.*.{view}.bias",
            "mmdetection's deformable convolutions have no bias",
            value=0.0,
        )
        for view in ("coarser", "same", "finer")
    ),
    UnmappedKey(
        f"{OURS}backbone.body.extractor.features.*.*.attn.relative_position_index",
        "computed from the window",
    ),
]
