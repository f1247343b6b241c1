"""How well anchors fit boxes: the IoU of each with its best anchor, and anchors that fit better.

Whether a box can be learned from depends on the anchors that lie on it: where none overlaps it by
half, Faster R-CNN and RetinaNet have little but their rule for the best anchor of each box.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dyhead_det.config.schema import (
    ATSSConfig,
    Compat,
    FasterRCNNConfig,
    FCOSConfig,
    ModelConfig,
    RetinaNetConfig,
)
from dyhead_det.data.coco.records import Floats, Integers
from dyhead_det.models.anchors import build_anchor_generator
from dyhead_det.models.atss.detector import ANCHOR_CELLS
from dyhead_det.models.detectors import DETECTORS

REACHED_IOU = 0.5
_AT_ONCE = 2**16  # boxes
_MOST_TRIED = 5_000  # boxes, a sample of more
_NUM_ROUNDS = 50
_DIGITS = 2  # of suggested ratios
_CELLS = (1, 1.5, 2, 3, 4, 6, 8)  # sides of suggested anchors in cells of their level


class AnchorLevel(NamedTuple):
    """The anchors of a level: shapes (A, 4) xyxy around (0, 0), repeated every `stride` pixels.

    offset: where the first one is centered, in cells.
    """

    stride: int
    offset: float
    shapes: Floats


class AnchorSuggestion(NamedTuple):
    """Anchors in the form that a configuration has them."""

    anchor_sizes: tuple[tuple[float, ...], ...]
    anchor_ratios: tuple[float, ...]

    def overrides(self) -> list[str]:
        """Return what `--set` takes."""
        sizes = [[round(size) for size in sizes] for sizes in self.anchor_sizes]
        return [
            f"model.detector.anchor_sizes={sizes}",
            f"model.detector.anchor_ratios={list(self.anchor_ratios)}",
        ]


def anchor_levels(config: ModelConfig) -> tuple[AnchorLevel, ...]:
    """Return the anchors of a detector, level by level; none for FCOS, which has points."""
    detector = config.detector
    strides = DETECTORS[detector.name].levels.strides
    if isinstance(detector, FCOSConfig):
        return ()
    if isinstance(detector, ATSSConfig):
        halves = [ANCHOR_CELLS * stride / 2 for stride in strides]
        return tuple(
            AnchorLevel(stride, detector.anchor_offset, np.array([[-half, -half, half, half]]))
            for stride, half in zip(strides, halves, strict=True)
        )
    return _levels(strides, detector.anchor_sizes, detector.anchor_ratios, config.compat)


def _levels(
    strides: Sequence[int],
    sizes: Sequence[Sequence[float]],
    ratios: Sequence[float],
    compat: Compat,
) -> tuple[AnchorLevel, ...]:
    shapes = build_anchor_generator(sizes, ratios, compat=compat).cell_anchors
    return tuple(
        AnchorLevel(stride, 0.0, of_level.double().numpy())
        for stride, of_level in zip(strides, shapes, strict=True)
    )


def best_ious(boxes: Floats, sizes_wh: Floats, levels: Sequence[AnchorLevel]) -> Floats:
    """Return the IoU of each box with the anchor that overlaps it most, (M,).

    Of the anchors of one shape that is the one nearest to the center of the box.

    Args:
        boxes: (M, 4) xyxy in pixels of the resized image.
        sizes_wh: (M, 2) of the resized image that each box lies in.
        levels: where anchors lie.
    """
    best = np.zeros(len(boxes))
    for start in range(0, len(boxes), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        for level in levels:
            num_cells = np.ceil(sizes_wh[rows] / level.stride)
            centers = (boxes[rows, :2] + boxes[rows, 2:]) / 2  # (m, 2)
            for shape in level.shapes:
                middle = (shape[:2] + shape[2:]) / 2  # rounding moves anchors by half a pixel
                cells = np.rint((centers - middle) / level.stride - level.offset)
                cells = cells.clip(0, np.maximum(num_cells - 1, 0))
                shift = np.tile((cells + level.offset) * level.stride, 2)
                np.maximum(best[rows], _ious(boxes[rows], shape + shift), out=best[rows])
    return best


def suggest_anchors(
    boxes: Floats, sizes_wh: Floats, config: ModelConfig
) -> AnchorSuggestion | None:
    """Return as many anchor sizes and ratios as a detector has, fitted to boxes; None without any.

    Sizes from k-means by IoU would be the best if anchors lay everywhere. On a coarse level they
    lie far apart, so that small ones miss most objects; sizes that grow with the strides are tried
    too, and those are taken that reach the most boxes.

    Args:
        boxes: (M, 4) xyxy in pixels of the resized image.
        sizes_wh: (M, 2) of the resized image that each box lies in.
        config: of the model.
    """
    detector = config.detector
    if not isinstance(detector, FasterRCNNConfig | RetinaNetConfig) or not len(boxes):
        return None
    if len(boxes) > _MOST_TRIED:
        chosen = np.random.default_rng(0).choice(len(boxes), _MOST_TRIED, replace=False)
        boxes, sizes_wh = boxes[chosen], sizes_wh[chosen]
    levels = DETECTORS[detector.name].levels
    per_level = len(detector.anchor_sizes[0])
    clustered, ratios = _cluster(
        np.log(boxes[:, 2:] - boxes[:, :2]),
        num_sizes=per_level * len(levels.strides),
        num_ratios=len(detector.anchor_ratios),
    )
    octave = 2 ** (np.arange(per_level) / per_level)
    sizes = [clustered.reshape(-1, per_level)]
    sizes += [cells * np.outer(levels.strides, octave) for cells in _CELLS]
    candidates = [
        AnchorSuggestion(tuple(map(tuple, of_levels.round().clip(1).tolist())), some_ratios)
        for some_ratios in (detector.anchor_ratios, tuple(ratios.round(_DIGITS).tolist()))
        for of_levels in sizes
    ]
    return max(candidates, key=lambda each: _reach(boxes, sizes_wh, with_anchors(config, each)))


def _reach(boxes: Floats, sizes_wh: Floats, config: ModelConfig) -> float:
    return float((best_ious(boxes, sizes_wh, anchor_levels(config)) >= REACHED_IOU).mean())


def with_anchors(config: ModelConfig, suggestion: AnchorSuggestion) -> ModelConfig:
    """Return a model with other anchors."""
    detector = config.detector.model_copy(update=suggestion._asdict())
    return config.model_copy(update={"detector": detector})


def _cluster(log_wh: Floats, *, num_sizes: int, num_ratios: int) -> tuple[Floats, Floats]:
    """Return sizes (num_sizes,) and ratios (num_ratios,) of boxes, in order, by k-means over IoU.

    Every box goes to the pair of a size and a ratio that overlaps it most; then every size and
    every ratio becomes the mean of its boxes, on a scale of logarithms.
    """
    log_size, log_ratio = log_wh.mean(axis=1), log_wh[:, 1] - log_wh[:, 0]  # (M,)
    sizes = np.quantile(log_size, (np.arange(num_sizes) + 0.5) / num_sizes)
    ratios = np.quantile(log_ratio, (np.arange(num_ratios) + 0.5) / num_ratios)
    before = None
    for _ in range(_NUM_ROUNDS):
        overlaps = _shape_ious(log_size, log_ratio, sizes, ratios)  # (M, sizes, ratios)
        size, ratio = np.divmod(overlaps.reshape(len(log_wh), -1).argmax(axis=1), num_ratios)
        sizes, ratios = _means(log_size, size, sizes), _means(log_ratio, ratio, ratios)
        assigned = np.stack([size, ratio])
        if before is not None and np.array_equal(before, assigned):
            break
        before = assigned
    return np.exp(np.sort(sizes)), np.exp(np.sort(ratios))


def _means(values: Floats, groups: Integers, before: Floats) -> Floats:
    """Return the mean of each group, what it was before where it is empty."""
    numbers = np.bincount(groups, minlength=len(before))
    sums = np.bincount(groups, weights=values, minlength=len(before))
    return np.where(numbers > 0, sums / np.maximum(numbers, 1), before)


def _shape_ious(log_size: Floats, log_ratio: Floats, sizes: Floats, ratios: Floats) -> Floats:
    """Return the IoU of boxes with anchors of one center, (M, sizes, ratios)."""
    own_w, own_h = (np.exp(log_size + sign * log_ratio / 2)[:, None, None] for sign in (-1, 1))
    w, h = (np.exp(sizes[:, None] + sign * ratios / 2) for sign in (-1, 1))
    overlaps = np.minimum(own_w, w) * np.minimum(own_h, h)
    return np.asarray(overlaps / (own_w * own_h + w * h - overlaps))


def _ious(boxes: Floats, others: Floats) -> Floats:
    """Return the IoU of boxes (M, 4) with others (M, 4), one by one."""
    sides = np.minimum(boxes[:, 2:], others[:, 2:]) - np.maximum(boxes[:, :2], others[:, :2])
    overlaps = sides.clip(0).prod(axis=1)
    areas = [(each[:, 2:] - each[:, :2]).prod(axis=1) for each in (boxes, others)]
    return np.asarray(overlaps / (areas[0] + areas[1] - overlaps))
