"""What a file that cannot be used looks like: one phrase for an error message."""

from collections.abc import Mapping

from dyhead_det.escaping import listed

# What the beginnings of a file's names say, the most particular first.
_SIGNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("a DyHead model in detectron2's format", ("backbone.dyhead_tower.",)),
    ("a DyHead model of mmdetection", ("neck.1.dyhead_blocks.",)),
    ("a GLIP model or another of maskrcnn-benchmark", ("rpn.head.dyhead_tower.",)),
    ("a torchvision Keypoint R-CNN", ("roi_heads.keypoint_head.", "backbone.fpn.inner_blocks.")),
    ("a torchvision Mask R-CNN", ("roi_heads.mask_predictor.", "backbone.fpn.inner_blocks.")),
    ("a torchvision Faster R-CNN", ("roi_heads.box_head.fc6.", "backbone.fpn.inner_blocks.")),
    ("a torchvision FCOS", ("head.regression_head.bbox_ctrness.", "backbone.fpn.")),
    ("a torchvision RetinaNet", ("head.classification_head.cls_logits.", "backbone.fpn.")),
    ("an mmdetection ATSS without DyHead", ("bbox_head.atss_cls.",)),
    ("an mmdetection RetinaNet without DyHead", ("bbox_head.retina_cls.",)),
    ("an mmdetection two-stage detector without DyHead", ("rpn_head.rpn_cls.",)),
    ("an mmdetection detector without DyHead", ("bbox_head.",)),
    ("a detectron2 Mask R-CNN without DyHead", ("roi_heads.mask_head.", "backbone.bottom_up.")),
    ("a detectron2 Faster R-CNN without DyHead", ("roi_heads.box_head.", "backbone.bottom_up.")),
    ("a detectron2 RetinaNet without DyHead", ("head.cls_subnet.", "backbone.bottom_up.")),
    ("a detectron2 detector without DyHead", ("backbone.bottom_up.",)),
    ("a model of DyHead's authors without its DyHead", ("backbone.backbone.bottom_up.",)),
    ("a ResNet backbone of detectron2 alone", ("stem.conv1.", "res2.0.")),
    ("a torchvision ResNet classifier", ("layer1.0.conv1.", "fc.")),
    ("a torchvision classifier", ("features.", "classifier.")),
    ("a torchvision Swin classifier", ("features.", "head.", "norm.")),
    ("a Swin classifier", ("patch_embed.", "layers.0.blocks.", "head.")),
    ("a DETR", ("transformer.encoder.", "class_embed.")),
    ("a YOLO of ultralytics", ("model.0.conv.",)),
)

# What files begin with that are taken for weights: downloads that failed, other programs' formats.
_BEGINNINGS: tuple[tuple[str, tuple[bytes, ...]], ...] = (
    ("a web page", (b"<!doctype html", b"<html")),
    ("XML", (b"<?xml",)),
    ("a pointer of git-lfs in place of the file", (b"version https://git-lfs",)),
    ("JSON", (b"{", b"[")),
    ("a picture", (b"\xff\xd8\xff", b"\x89png", b"gif8")),
    ("a packed archive", (b"\x1f\x8b", b"bzh", b"\xfd7zxz", b"7z\xbc\xaf")),
    ("weights of Keras (HDF5)", (b"\x89hdf",)),
)


def looks_like(content: object, names: Mapping[str, object]) -> str:
    """Say what a file looks like.

    Args:
        content: What was read from the file.
        names: The tensors in it by name.
    """
    if isinstance(content, Mapping):
        if content.get("format") == "dyhead-det":
            return "a checkpoint of dyhead-det already; use it as it is"
        if {"state", "param_groups"} <= set(content):
            return "the state of an optimizer"
    for phrase, signs in _SIGNS:
        if all(any(name.startswith(sign) for name in names) for sign in signs):
            return phrase
    if names:
        return f"something else: {len(names)} tensors, {listed(names, max_named=3)}"
    if isinstance(content, Mapping) and content:
        return f"something without tensors by name: {listed(content, max_named=4)}"
    return f"something without tensors by name: a {type(content).__name__}"


def beginning_looks_like(beginning: bytes) -> str | None:
    """Say what a file that no reader knows looks like by its first bytes; None if by nothing."""
    if not beginning:
        return "an empty file"
    start = beginning.lstrip().lower()
    return next((phrase for phrase, signs in _BEGINNINGS if start.startswith(signs)), None)
