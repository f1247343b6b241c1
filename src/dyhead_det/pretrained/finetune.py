"""Starting to train from another detector's weights: `model.weights`.

Taken are checkpoints of ours (imported ones too) and torchvision's COCO detectors, whose plain
part starts from COCO while DyHead is fresh. All that fits by name and shape is used. The layers
that tell classes apart are filled class by class, where categories have the same name; for other
categories they start anew.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from dyhead_det.checkpoints.foreign_files import named_tensors
from dyhead_det.checkpoints.key_mapping import Rule, renamed
from dyhead_det.checkpoints.recognize import looks_like
from dyhead_det.checkpoints.state_dicts import read_torch_file
from dyhead_det.config.schema import InputConfig, ModelConfig, to_plain
from dyhead_det.contracts import CategoryMap
from dyhead_det.errors import CheckpointError
from dyhead_det.models.detectors import DETECTORS, Detector

logger = logging.getLogger(__name__)

# Layers with rows for every class, and the rows of one class; RetinaNet repeats all per anchor.
_ROWS_OF_A_CLASS = {
    f"network.{name}": rows
    for spec in DETECTORS.values()
    for name, rows in spec.class_layers.items()
}

_BACKBONE = "network.backbone.body."
_STEP_COUNTER = ".num_batches_tracked"

# Under other values of these the same weights compute something else, and no shape tells.
_MEANINGFUL_KEYS = (
    "compat",
    "detector.name",
    "detector.anchor_sizes",
    "detector.anchor_ratios",
    "detector.anchor_offset",
    "backbone.name",
    "backbone.norm",
    "backbone.stride_in_1x1",
    "input.mean",
    "input.std",
    "dyhead.scheme",
    "dyhead.attention",
    "dyhead.spatial",
    "dyhead.coarse_offsets",
    "dyhead.residual",
)


@dataclass(frozen=True, slots=True)
class Source:
    """Weights to start from, by our names.

    tensors: A state dict.
    row_of_class: Where a class stands in class layers, by lower-case name.
    num_rows: Classes that class layers have, with background.
    model: The configuration as plain values, as far as it is known.
    """

    tensors: dict[str, Tensor]
    row_of_class: dict[str, int]
    num_rows: int
    model: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class StartReport:
    """What became of the weights.

    used: Names of ours that were taken as they are.
    matched_classes: Classes whose rows of the class layers were taken.
    fresh_classes: Classes that start anew.
    fresh: Names of ours that start anew.
    unused: The source's names that have no place.
    """

    used: tuple[str, ...]
    matched_classes: tuple[str, ...]
    fresh_classes: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{len(self.used)} tensors taken"]
        if self.matched_classes:
            parts.append(f"classes taken by name: {', '.join(self.matched_classes)}")
        if self.fresh_classes:
            parts.append(f"classes that start anew: {', '.join(self.fresh_classes)}")
        for names, what in ((self.fresh, "start anew"), (self.unused, "not used")):
            if names:
                parts.append(f"{len(names)} {what}: {', '.join(_groups(names))}")
        return "; ".join(parts)


def start_from(
    detector: Detector, path: Path, *, categories: CategoryMap, config: ModelConfig
) -> StartReport:
    """Fill a detector with what fits of another's weights, in place.

    Args:
        detector: Freshly built.
        path: A checkpoint of ours, or a state dict of a torchvision COCO detector.
        categories: The detector's classes.
        config: What the detector was built from.

    Returns:
        What was taken and what starts anew; it is also logged.

    Raises:
        CheckpointError: If the file is missing, damaged, of another kind, or nothing fits.
    """
    source = _read_source(path, first_label=detector.first_label)
    _warn_of_differences(path, source, config)
    own = detector.state_dict()  # shares its memory with the detector
    used = _copy_fitting(source.tensors, own)
    if not used:
        raise CheckpointError(f"{path}: nothing in it fits this model")
    matched = _copy_classes(source, own, categories, first_label=detector.first_label)
    report = StartReport(
        used=tuple(used),
        matched_classes=matched,
        fresh_classes=tuple(name for name in categories.names if name not in matched),
        fresh=tuple(name for name in own if name not in used and not _tells_classes(name)),
        unused=tuple(
            name for name in source.tensors if name not in used and not _tells_classes(name)
        ),
    )
    logger.info("%s: %s", path, report)
    if not any(name.startswith(_BACKBONE) for name in used):
        logger.warning(
            "%s: nothing in it fits the backbone, which starts from random weights", path
        )
    return report


def _warn_of_differences(path: Path, source: Source, config: ModelConfig) -> None:
    before, after = source.model, to_plain(config)
    changed = [
        key
        for key in _MEANINGFUL_KEYS
        if None not in (pair := (_value(before, key), _value(after, key))) and pair[0] != pair[1]
    ]
    if changed:
        logger.warning(
            "%s: its model has other values of %s; weights may mean something else here",
            path,
            ", ".join(changed),
        )


def _value(plain: object, dotted_key: str) -> object:
    """Look a value up; None where a section or a key is not there."""
    for key in dotted_key.split("."):
        plain = plain.get(key) if isinstance(plain, Mapping) else None
    return plain


def _tells_classes(name: str) -> bool:
    return name.rpartition(".")[0] in _ROWS_OF_A_CLASS


def _copy_fitting(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> set[str]:
    """Copy, in place, what has the same name and shape, but for class layers; return the names."""
    used = {
        name
        for name, tensor in given.items()
        if name in own and not _tells_classes(name) and tensor.shape == own[name].shape
    }
    for name in used:
        own[name].copy_(given[name])
    return used


def _copy_classes(
    source: Source, own: Mapping[str, Tensor], categories: CategoryMap, *, first_label: int
) -> tuple[str, ...]:
    """Copy, in place, the rows of classes with the same name; return these."""
    matched = {
        name: source.row_of_class[name.lower()]
        for name in categories.names
        if name.lower() in source.row_of_class
    }
    rows = {categories.label_of_name[name] + first_label: row for name, row in matched.items()}
    if first_label == 1:
        rows[0] = 0  # background
    fits = [
        _copy_rows(
            source.tensors[name],
            own[name],
            rows,
            num_given=source.num_rows,
            num_own=len(categories) + first_label,
            per_class=_ROWS_OF_A_CLASS[name.rpartition(".")[0]],
        )
        for name in own
        if _tells_classes(name) and name in source.tensors
    ]
    return tuple(matched) if fits and all(fits) else ()


def _copy_rows(
    given: Tensor,
    own: Tensor,
    rows: Mapping[int, int],
    *,
    num_given: int,
    num_own: int,
    per_class: int,
) -> bool:
    """Copy the rows of classes into a class layer, in place; say whether its form allows it.

    Args:
        given: (G * num_given * per_class, ...), G groups (anchors).
        own: (G * num_own * per_class, ...).
        rows: Of a class: its place in `own` -> its place in `given`.
        num_given: Classes in `given`.
        num_own: Classes in `own`.
        per_class: Rows of one class in a group.
    """
    if len(given) % (num_given * per_class):
        return False
    given_groups = given.view(-1, num_given, per_class, *given.shape[1:])
    own_groups = own.view(-1, num_own, per_class, *own.shape[1:])
    if (len(given_groups), given.shape[1:]) != (len(own_groups), own.shape[1:]):
        return False
    for own_row, given_row in rows.items():
        own_groups[:, own_row] = given_groups[:, given_row]
    return True


def _read_source(path: Path, *, first_label: int) -> Source:
    content = read_torch_file(path)
    if isinstance(content, dict) and content.get("format") == "dyhead-det":
        try:
            return _own_source(content, first_label=first_label)
        except KeyError as error:
            raise CheckpointError(f"{path}: a checkpoint without its {error}") from error
    tensors = named_tensors(content)
    is_torchvision = "backbone.body.conv1.weight" in tensors and any(
        name.startswith("backbone.fpn.") for name in tensors
    )
    if not is_torchvision:
        raise CheckpointError(
            f"{path}: wanted is a checkpoint of dyhead-det or a COCO detector of torchvision; this "
            f"looks like {looks_like(content, tensors)}. Published DyHead weights are imported "
            "first: `dyhead-det weights import`"
        )
    return _torchvision_source(tensors)


def _own_source(content: Mapping[str, Any], *, first_label: int) -> Source:
    categories = CategoryMap.from_plain(content["categories"])
    return Source(
        tensors=content["model"],
        row_of_class={
            name.lower(): label + first_label for name, label in categories.label_of_name.items()
        },
        num_rows=len(categories) + first_label,
        model=content["config"]["model"],
    )


def _torchvision_source(tensors: Mapping[str, Tensor]) -> Source:
    """Return a torchvision COCO detector's weights by our names; its rows are COCO's ids."""
    categories = torchvision.models.detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta[
        "categories"
    ]
    detector = _torchvision_detector(tensors)
    is_fcos = detector == "fcos"
    rules = _OLD_BACKBONE if is_fcos else [*_OLD_BACKBONE, *_OLD_HEADS]
    ours = {f"network.{name}": value for name, value in renamed(tensors, rules).items()}
    if not is_fcos:
        _fold_missing_epsilon(ours)
    return Source(
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


def _torchvision_detector(tensors: Mapping[str, Tensor]) -> str:
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
        if part == "running_var" and norm + _STEP_COUNTER not in tensors:
            factor = torch.sqrt((variance + epsilon) / variance)
            tensors[f"{norm}.weight"] = tensors[f"{norm}.weight"] * factor


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


def _groups(names: tuple[str, ...]) -> list[str]:
    """Shorten names to the parts of the model they belong to."""
    return sorted({".".join(name.removeprefix("network.").split(".")[:2]) for name in names})
