"""Torchvision's COCO detectors as weights to start from: names, classes and norms."""

from collections.abc import Mapping

import torch
import torchvision
from torch import Tensor, nn

from dyhead_det.checkpoints.key_mapping import Rule, renamed
from dyhead_det.config.schema import InputConfig, to_plain
from dyhead_det.pretrained.starting_point import StartingPoint

_STEP_COUNTER = ".num_batches_tracked"


def is_coco_detector(names: Mapping[str, Tensor]) -> bool:
    """Return whether tensors are those of a detector with a feature pyramid, by torchvision."""
    has_pyramid = any(name.startswith("backbone.fpn.") for name in names)
    return has_pyramid and "backbone.body.conv1.weight" in names


def coco_source(tensors: Mapping[str, Tensor]) -> StartingPoint:
    """Return a torchvision COCO detector's weights by our names; its rows are COCO's ids."""
    categories = torchvision.models.detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta[
        "categories"
    ]
    detector = _detector_name(tensors)
    is_fcos = detector == "fcos"
    rules = _OLD_BACKBONE if is_fcos else [*_OLD_BACKBONE, *_OLD_HEADS]
    ours = {f"network.{name}": value for name, value in renamed(tensors, rules).items()}
    if not is_fcos:
        _fold_missing_epsilon(ours)
    return StartingPoint(
        tensors={n: value for n, value in ours.items() if not n.endswith(_STEP_COUNTER)},
        row_of_class={
            name.lower(): row
            for row, name in enumerate(categories)
            if name not in ("__background__", "N/A")
        },
        num_rows=len(categories),
        model={
            "compat": "none",
            "detector": {"name": detector},
            "backbone": {"stride_in_1x1": False},
            "input": to_plain(InputConfig()),
        },
    )


def _detector_name(tensors: Mapping[str, Tensor]) -> str:
    if "roi_heads.box_predictor.cls_score.weight" in tensors:
        return "fasterrcnn"
    return "fcos" if "head.regression_head.bbox_ctrness.weight" in tensors else "retinanet"


def _fold_missing_epsilon(tensors: dict[str, Tensor]) -> None:
    """Scale frozen batch norms, in place, so that they do with an epsilon what they did without.

    Torchvision sets the epsilon of its COCO Faster R-CNN and RetinaNet to zero after loading; it
    stands in no file. Batch norms that were trained have a counter, and kept theirs.
    """
    epsilon = nn.BatchNorm2d(1).eps
    for name, variance in tensors.items():
        norm, _, part = name.rpartition(".")
        weight = tensors.get(f"{norm}.weight")
        is_frozen = part == "running_var" and norm + _STEP_COUNTER not in tensors
        if is_frozen and weight is not None and weight.shape == variance.shape:
            tensors[f"{norm}.weight"] = weight * torch.sqrt((variance + epsilon) / variance)


# Names in torchvision's files, written before its layers were put into blocks.
_OLD_BACKBONE = [
    Rule("backbone.fpn.inner_blocks.*.%", "backbone.fpn.inner_blocks.*.0.%"),
    Rule("backbone.fpn.layer_blocks.*.%", "backbone.fpn.layer_blocks.*.0.%"),
]
_OLD_HEADS = [
    Rule("rpn.head.conv.%", "rpn.head.conv.0.0.%"),
    *(
        Rule(f"head.{head}.conv.{2 * index}.%", f"head.{head}.conv.{index}.0.%")
        for head in ("classification_head", "regression_head")
        for index in range(4)
    ),
]
