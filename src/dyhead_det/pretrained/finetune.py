"""Starting to train from another detector's weights: `model.weights`.

Taken are checkpoints of ours (imported ones too) and torchvision's COCO detectors, whose plain
part starts from COCO while DyHead is fresh. All that fits by name and shape is used. The layers
that tell classes apart are filled class by class, where categories have the same name; for other
categories they start anew.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dyhead_det.checkpoints.checkpoint import Checkpoint, is_ours, parse_checkpoint
from dyhead_det.checkpoints.recognize import looks_like
from dyhead_det.checkpoints.state_dicts import is_computed, misfit, require_finite
from dyhead_det.checkpoints.weight_files import named_tensors, read_weight_file
from dyhead_det.config.schema import DyHeadConfig, ModelConfig, to_plain
from dyhead_det.contracts import CategoryMap
from dyhead_det.errors import CheckpointError
from dyhead_det.escaping import listed, printable
from dyhead_det.models.detectors import DETECTORS, Detector
from dyhead_det.pretrained.starting_point import StartingPoint
from dyhead_det.pretrained.torchvision import coco_source, is_coco_detector

logger = logging.getLogger(__name__)

# Layers with rows for every class, and the rows of one class; RetinaNet repeats all per anchor.
_ROWS_OF_A_CLASS = {
    f"network.{name}": rows
    for spec in DETECTORS.values()
    for name, rows in spec.class_layers.items()
}

_BACKBONE = "network.backbone.body."
_DYHEAD = "network.backbone.dyhead."

_SMALL_SCALE = 0.01
"""With a residual of this scale an untrained DyHead leaves the pyramid as it is."""

_LEAST_SHARE = 0.25
"""Of a file's tensors that must fit, and of the backbone's where weights are configured for it."""

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
    "fpn_norm",
    "input.mean",
    "input.std",
    "dyhead.scheme",
    "dyhead.attention",
    "dyhead.spatial",
    "dyhead.coarse_offsets",
    "dyhead.residual",
)


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
        """Return a table of the parts of the model, and a line of classes."""
        columns = [Counter(map(_part, names)) for names in (self.used, self.fresh, self.unused)]
        parts = sorted(set().union(*columns))
        rows: list[tuple[str, ...]] = [("tensors of", "taken", "start anew", "not used")]
        rows += [(part, *(str(column[part] or "-") for column in columns)) for part in parts]
        width = max(len(row[0]) for row in rows)
        lines = [
            "  ".join([row[0].ljust(width), *(cell.rjust(10) for cell in row[1:])]) for row in rows
        ]
        classes = [
            f"{what}: {listed(names)}"
            for names, what in (
                (self.matched_classes, "classes taken by name"),
                (self.fresh_classes, "classes that start anew"),
            )
            if names
        ]
        lines.append("; ".join(classes))
        return "\n".join(lines)


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
        CheckpointError: If the file is missing, damaged, of another kind, or too little of it fits.
    """
    source = _read_source(path, first_label=detector.first_label)
    own = detector.state_dict()  # shares its memory with the detector
    used = _fitting_names(source.tensors, own)
    _require_enough(path, used, source, own, config)
    _warn_of_differences(path, source, config)
    for name in used:
        own[name].copy_(source.tensors[name])
    matched = _copy_classes(source, own, categories, first_label=detector.first_label)
    report = StartReport(
        used=tuple(used),
        matched_classes=matched,
        fresh_classes=tuple(name for name in categories.names if name not in matched),
        fresh=tuple(name for name in _plain_names(own, own) if name not in used),
        unused=tuple(name for name in _plain_names(source.tensors, own) if name not in used),
    )
    for line in (f"{path}:", *str(report).splitlines()):
        logger.info("%s", line)
    if not any(name.startswith(_BACKBONE) for name in used):
        logger.warning(
            "%s: nothing in it fits the backbone, which starts from random weights", path
        )
    if config.dyhead is not None and not any(name.startswith(_DYHEAD) for name in used):
        _warn_of_an_untrained_dyhead(path, config.dyhead)
    return report


def _warn_of_an_untrained_dyhead(path: Path, dyhead: DyHeadConfig) -> None:
    """Say that a new DyHead behind trained weights hides at first what they find."""
    if dyhead.residual and abs(dyhead.residual_scale) <= _SMALL_SCALE:
        return
    logger.warning(
        "%s: has no DyHead; an untrained one hides at first what its weights find; start with "
        "model.dyhead.residual=true and model.dyhead.residual_scale=%g to keep that",
        path,
        _SMALL_SCALE,
    )


def _plain_names(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Return the names that are taken as a whole: no layers of classes, nothing computed."""
    return [
        name
        for name, value in tensors.items()
        if not _tells_classes(name) and not is_computed(name, own.get(name, value))
    ]


def _fitting_names(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> set[str]:
    return {
        name
        for name in _plain_names(given, own)
        if name in own and misfit(given[name], own[name]) is None
    }


def _require_enough(
    path: Path,
    used: set[str],
    source: StartingPoint,
    own: Mapping[str, Tensor],
    config: ModelConfig,
) -> None:
    """Refuse a file that has next to nothing to do with the model.

    Raises:
        CheckpointError: With what does not fit.
    """
    given = _plain_names(source.tensors, own)
    if len(used) < _LEAST_SHARE * len(given) or not used:
        parts = listed(dict.fromkeys(_part(name) for name in given if name not in used))
        raise CheckpointError(
            f"{path}: made for another model, {len(used)} of its {len(given)} tensors fit; not "
            f"those of {parts}{_backbones(source, config)}"
        )
    body = [name for name in _plain_names(own, own) if name.startswith(_BACKBONE)]
    num_used = sum(name in used for name in body)
    if num_used < _LEAST_SHARE * len(body) and config.backbone.weights != "none":
        raise CheckpointError(
            f"{path}: {num_used} of {len(body)} tensors of the backbone fit"
            f"{_backbones(source, config)}, and model.weights goes without "
            f"model.backbone.weights ({config.backbone.weights}); take the file's backbone, leave "
            "model.weights out, or start the backbone anew with model.backbone.weights=none"
        )


def _backbones(source: StartingPoint, config: ModelConfig) -> str:
    theirs = _value(source.model, "backbone.name")
    given = f"the file's is {printable(theirs)}, " if theirs else ""
    return f" ({given}the model's is {config.backbone.name})"


def _warn_of_differences(path: Path, source: StartingPoint, config: ModelConfig) -> None:
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
            ", ".join(f"model.{key}" for key in changed),
        )


def _value(plain: object, dotted_key: str) -> object:
    """Look a value up; None where a section or a key is not there."""
    for key in dotted_key.split("."):
        plain = plain.get(key) if isinstance(plain, Mapping) else None
    return plain


def _tells_classes(name: str) -> bool:
    return name.rpartition(".")[0] in _ROWS_OF_A_CLASS


def _copy_classes(
    source: StartingPoint, own: Mapping[str, Tensor], categories: CategoryMap, *, first_label: int
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
    if given.ndim != own.ndim or not given.is_floating_point():
        return False
    if not given.ndim or len(given) % (num_given * per_class):
        return False
    given_groups = given.view(-1, num_given, per_class, *given.shape[1:])
    own_groups = own.view(-1, num_own, per_class, *own.shape[1:])
    if (len(given_groups), given.shape[1:]) != (len(own_groups), own.shape[1:]):
        return False
    for own_row, given_row in rows.items():
        own_groups[:, own_row] = given_groups[:, given_row]
    return True


def _read_source(path: Path, *, first_label: int) -> StartingPoint:
    content = read_weight_file(path)
    if is_ours(content):
        return _own_source(parse_checkpoint(content, source=str(path)), first_label=first_label)
    tensors = named_tensors(content)
    if not is_coco_detector(tensors):
        raise CheckpointError(
            f"{path}: wanted is a checkpoint of dyhead-det or a COCO detector of torchvision; this "
            f"looks like {looks_like(content, tensors)}. Published DyHead weights are imported "
            "first: `dyhead-det weights import`"
        )
    require_finite(tensors, source=str(path))
    return coco_source(tensors)


def _own_source(checkpoint: Checkpoint, *, first_label: int) -> StartingPoint:
    rows = checkpoint.categories.label_of_name.items()
    return StartingPoint(
        tensors=checkpoint.model,
        row_of_class={name.lower(): label + first_label for name, label in rows},
        num_rows=len(checkpoint.categories) + first_label,
        model=to_plain(checkpoint.config.model),
    )


def _part(name: str) -> str:
    """Return the part of the model that a tensor belongs to."""
    return ".".join(name.removeprefix("network.").split(".")[:2])
