"""What a file that cannot be used looks like: one phrase for an error message."""

from collections.abc import Mapping

from dyhead_det.escaping import listed

# What the beginning of any name in a file says, the most particular first.
_SIGNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("a DyHead model in detectron2's format", ("backbone.dyhead_tower.",)),
    ("a DyHead model of mmdetection", ("neck.1.dyhead_blocks.",)),
    ("a GLIP model or another of maskrcnn-benchmark", ("rpn.head.dyhead_tower.",)),
    ("a detector of torchvision", ("backbone.fpn.",)),
    ("a detector of mmdetection without DyHead", ("bbox_head.", "rpn_head.")),
    (
        "a detector of detectron2 without DyHead",
        ("backbone.bottom_up.", "backbone.backbone.bottom_up."),
    ),
    ("a YOLO of ultralytics", ("model.0.conv.",)),
    (
        "a classifier, or a backbone alone",
        ("layer1.0.", "features.", "res2.0.", "patch_embed.", "layers.0.blocks."),
    ),
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
        if any(name.startswith(signs) for name in names):
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
