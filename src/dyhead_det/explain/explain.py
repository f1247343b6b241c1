"""Run a detector on one image, listen to its DyHead, and gather what it looked at."""

from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor

from dyhead_det.dyhead.head import DyHead
from dyhead_det.dyhead.stacked import StackedDyHead
from dyhead_det.dyhead.trace import LevelTrace, listen, trace_blocks
from dyhead_det.errors import CheckpointError
from dyhead_det.explain.choose import choose, level_named
from dyhead_det.explain.grids import Grids, sampled_positions
from dyhead_det.models.detectors import Detector
from dyhead_det.prediction.arguments import MIN_SCORE, MinScore
from dyhead_det.prediction.images import ImageLike, as_image, as_uint8
from dyhead_det.prediction.predictor import Predictor
from dyhead_det.visualize.attention import SOURCES, Attention, Floats


def explain(
    predictor: Predictor,
    image: ImageLike,
    *,
    box: int | None = None,
    at: tuple[float, float] | None = None,
    class_name: str | None = None,
    level: str | None = None,
    min_score: MinScore = MIN_SCORE,
) -> Attention:
    """Tell what a detector's DyHead looked at in an image, for one detection or one pixel.

    The image goes through the detector as ever, and its pyramid a second time through the readable
    blocks; while that lasts no other thread should use the detector.

    Args:
        predictor: As `load` returns it.
        image: In any form that `predict` takes.
        box: Which detection, from 1, best first. The best one unless told otherwise; where nothing
            is found, the middle of the image.
        at: A pixel (x, y) instead.
        class_name: The best detection of this class instead.
        level: Of which level, such as `p4`; by default the one on which the box is about eight
            positions long, and the middle one for a pixel.
        min_score: What scores less is not among the detections.

    Raises:
        CheckpointError: If the detector has no DyHead.
        ConfigError: If there is no such detection, class, level or pixel.
        DatasetError: If an image file cannot be read.
        ValueError: If more than one of `box`, `at` and `class_name` is given.
    """
    detector, dyhead = require_dyhead(predictor)
    names = detector.backbone.names
    number = None if level is None else level_named(level, names)
    pixels = as_image(image)
    with ExitStack() as hooks:
        calls = listen(hooks, dyhead, lambda attended, pyramid: (pyramid, attended))
        sizes_hw = listen(hooks, detector.transform, lambda batch, *_: batch[0].image_sizes[0])
        detections = predictor.predict(pixels, min_score=min_score)
    given, own = calls[0]
    height, width = pixels.shape[1:]
    grids = Grids(detector.spec.levels.strides, sizes_hw[0], (height, width))
    choice = choose(detections, grids.image_hw, box=box, at=at, class_name=class_name)
    if number is None:
        number = len(names) // 2
        if choice.detection is not None:
            number = grids.level_of_box(detections[choice.detection].box)
    rows = _Rows(grids, choice.point, number)
    with torch.no_grad():
        for block in trace_blocks(dyhead, given):
            rows.add(block.levels)
            explained = block.pyramid
    return Attention(
        image=as_uint8(pixels).permute(1, 2, 0).numpy(),
        boxes=detections.boxes,
        captions=tuple(f"{each.name} {each.score:.0%}" for each in detections),
        chosen=choice.detection,
        point=choice.point,
        level=number,
        location=rows.location,
        levels=names,
        grids=rows.grid_of_level,
        strides=grids.strides,
        scale_xy=grids.scale_xy,
        before=dict(zip(names, _strengths(given, grids), strict=True)),
        blocks=dict(zip(names, _stack_by_level(rows.maps), strict=True)),
        after=dict(zip(names, _strengths(own, grids), strict=True)),
        change={
            name: float((y - x).norm() / x.norm())
            for name, x, y in zip(names, given, own, strict=True)
        },
        offsets=dict(zip(names, _stack_by_level(rows.offsets), strict=False)),
        masks=dict(zip(names, _stack_by_level(rows.masks), strict=False)),
        points_xy=np.stack(rows.points_xy),
        points_mask=np.stack(rows.points_mask),
        gates=np.stack(rows.gates),
        coefficients=np.stack(rows.coefficients) if rows.coefficients else None,
        difference=max(
            float((a - b).abs().max() / b.abs().max()) for a, b in zip(explained, own, strict=True)
        ),
    )


def require_dyhead(predictor: Predictor) -> tuple[Detector, DyHead | StackedDyHead]:
    """Return the detector of a predictor and its DyHead.

    Raises:
        CheckpointError: If it has none.
    """
    detector = predictor.detector
    if isinstance(detector, Detector):
        dyhead = detector.backbone.dyhead
        if isinstance(dyhead, DyHead | StackedDyHead):
            return detector, dyhead
    raise CheckpointError(
        "the detector has no DyHead (model.dyhead: null), so there is nothing to explain"
    )


class _Rows:
    """The numbers of the blocks so far, one row a block, as `Attention` describes them."""

    def __init__(self, grids: Grids, point: tuple[float, float], level: int) -> None:
        self._grids, self._point, self._level = grids, point, level
        self.location = (0, 0)
        self.grid_of_level: tuple[int, ...] = ()
        self.maps: list[list[Floats]] = []
        self.offsets: list[list[Floats]] = []
        self.masks: list[list[Floats]] = []
        self.points_xy: list[Floats] = []
        self.points_mask: list[Floats] = []
        self.gates: list[Floats] = []
        self.coefficients: list[Floats] = []

    def add(self, levels: Sequence[LevelTrace]) -> None:
        """Take what is to be kept of a block."""
        grids = self._grids
        self.grid_of_level = tuple(level.grid for level in levels)
        self.maps.append([grids.inside(_strength(level.result), level.grid) for level in levels])
        own = [level.candidates[0].sampling for level in levels]
        self.offsets.append([grids.inside(each.offset, each.grid) for each in own if each])
        self.masks.append([grids.inside(each.mask, each.grid) for each in own if each])
        gates = np.full((len(levels), len(SOURCES)), np.nan, dtype=np.float32)
        for number, level in enumerate(levels):
            for candidate in level.candidates:
                if candidate.gate is not None:
                    gates[number, _row(candidate.source - number)] = float(candidate.gate[0])
        self.gates.append(gates)
        coefficients = [each.coefficients for each in levels if each.coefficients is not None]
        if coefficients:
            self.coefficients.append(torch.stack(coefficients)[:, :, 0].float().cpu().numpy())
        self._add_points(levels[self._level])

    def _add_points(self, level: LevelTrace) -> None:
        """Find where the taps read for the point that is looked at."""
        grids = self._grids
        self.location = grids.location(self._point, level.grid)
        points = np.full((len(SOURCES), 9, 2), np.nan, dtype=np.float32)
        masks = np.full((len(SOURCES), 9), np.nan, dtype=np.float32)
        for candidate in level.candidates:
            sampling, row = candidate.sampling, _row(candidate.source - self._level)
            if sampling is not None:
                height, width = level.result.shape[-2:]
                positions, masks[row] = sampled_positions(sampling, self.location, (height, width))
                points[row] = grids.pixels(positions, sampling.grid)
        self.points_xy.append(points)
        self.points_mask.append(masks)


def _row(levels_coarser: int) -> int:
    """Return the place in `SOURCES` of the level itself, 0, the finer, -1, or the coarser one."""
    return (0, -1, 1).index(levels_coarser)


def _strength(x: Tensor) -> Tensor:
    """Return the root of the mean square over channels, (B, H, W)."""
    return x.float().square().mean(dim=1).sqrt()


def _strengths(levels: Sequence[Tensor], grids: Grids) -> list[Floats]:
    return [grids.inside(_strength(x), level) for level, x in enumerate(levels)]


def _stack_by_level(rows: Sequence[Sequence[Floats]]) -> list[Floats]:
    """Turn arrays by block and level into arrays by level whose first dimension is the block."""
    return [np.stack(blocks) for blocks in zip(*rows, strict=True)]
