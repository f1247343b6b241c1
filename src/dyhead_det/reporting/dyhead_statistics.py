"""What has become of a trained DyHead: offsets and masks by block and level, what it changes.

Offsets that run off the map read zeros, and masks at 0 or 1 have no gradient left: such a block has
stopped learning where to look (see `optim.offset_lr_factor`). What DyHead adds to the pyramid is of
the order of one; an FPN without norms may make maps of fifty, which then hardly change.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from dyhead_det.dyhead.head import DyHead
from dyhead_det.dyhead.stacked import StackedDyHead
from dyhead_det.dyhead.trace import listen, trace_blocks
from dyhead_det.models.detectors import Detector
from dyhead_det.reporting.metrics_file import Row

logger = logging.getLogger(__name__)

# A mask this near to 0 or 1 has a gradient of less than a hundredth.
SATURATED = 0.01
# From this share of taps on off the map a block is worth a warning.
MOST_OUTSIDE = 0.1
# A DyHead that changes all levels by less is worth one, too.
LEAST_CHANGE = 0.02
TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, slots=True)
class OffsetStatistics:
    """Offsets and masks of one block on one level.

    mean_offset, max_offset: Distance of a tap from where a plain convolution reads, in pixels of
        the level.
    share_outside: Of the taps that a plain convolution has on the map, those that are off it.
    mask_saturation: Share of the masks within .01 of 0 or 1.
    """

    mean_offset: float
    max_offset: float
    share_outside: float
    mask_saturation: float


@dataclass(frozen=True, slots=True)
class ChangeStatistics:
    """What DyHead and its residual change on one level, all channels and positions together.

    pyramid_rms: Root mean square of the map that the FPN made.
    change: Root mean square of what DyHead adds to it, as a share of `pyramid_rms`.
    """

    pyramid_rms: float
    change: float


def dyhead_metrics(detector: Detector, images: list[Tensor]) -> Row:
    """Measure a detector's DyHead on images, for metrics.jsonl; warn where it is off or lost.

    Returns:
        `dyhead/block<b>/level<l>/<field of OffsetStatistics>` and, with a residual, mean and
        standard deviation of its scale over channels as `dyhead/residual_scale/mean` and `/std`,
        and `dyhead/level<l>/<field of ChangeStatistics>`; None for what has diverged. Empty without
        DyHead.
    """
    dyhead = detector.backbone.dyhead
    if not isinstance(dyhead, DyHead | StackedDyHead):
        return {}
    levels, attended = pyramids_of(detector, images)
    offsets = measure_offsets(dyhead, levels)
    changes = [] if dyhead.residual_scale is None else measure_changes(levels, attended)
    warn_of_lost_offsets(offsets)
    warn_of_little_change(changes)
    metrics = {
        f"dyhead/block{block}/level{level}/{name}": float(value)
        for (block, level), statistics in offsets.items()
        for name, value in asdict(statistics).items()
    }
    metrics |= {
        f"dyhead/level{level}/{name}": float(value)
        for level, statistics in enumerate(changes)
        for name, value in asdict(statistics).items()
    }
    if dyhead.residual_scale is not None:
        std, mean = torch.std_mean(dyhead.residual_scale.detach(), correction=0)
        metrics["dyhead/residual_scale/mean"] = float(mean)
        metrics["dyhead/residual_scale/std"] = float(std)
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def offset_statistics(offset: Tensor, mask: Tensor) -> OffsetStatistics:
    """Describe offsets, (B, 18, H, W), and masks, (B, 9, H, W)."""
    offset, mask = offset.float(), mask.float()
    batch, _, height, width = offset.shape
    dy, dx = offset.view(batch, 9, 2, height, width).unbind(dim=2)  # (B, 9, H, W)
    taps = torch.arange(-1, 2, device=offset.device)
    y = (
        taps.repeat_interleave(3)[:, None, None]
        + torch.arange(height, device=offset.device)[:, None]
    )
    x = taps.repeat(3)[:, None, None] + torch.arange(width, device=offset.device)
    length = torch.hypot(dy, dx)
    was_inside = _is_inside(y, height) & _is_inside(x, width)  # (9, H, W)
    is_inside = _is_inside(y + dy, height) & _is_inside(x + dx, width)
    num_taps = batch * was_inside.sum()
    return OffsetStatistics(
        mean_offset=float(length.mean()),
        max_offset=float(length.max()),
        share_outside=float((was_inside & ~is_inside).sum() / num_taps),
        mask_saturation=float(((mask - 0.5).abs() > 0.5 - SATURATED).float().mean()),
    )


def _is_inside(position: Tensor, size: int) -> Tensor:
    """Return whether bilinear interpolation at a position reads any pixel of 0 .. size - 1."""
    return (position > -1) & (position < size)


def pyramids_of(detector: Detector, images: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the pyramid of images as the FPN made it, and as DyHead returns it.

    Args:
        detector: With DyHead, in whatever mode; it is left in it.
        images: As the detector takes them.
    """
    dyhead, was_training = detector.backbone.dyhead, detector.training
    if dyhead is None:
        raise ValueError("the detector has no DyHead")
    detector.eval()
    with ExitStack() as hooks, torch.no_grad():
        seen: list[tuple[list[Tensor], list[Tensor]]] = listen(
            hooks, dyhead, lambda attended, levels: (levels, attended)
        )
        detector(images)
    detector.train(was_training)
    return seen[0]


@torch.no_grad()
def measure_offsets(
    dyhead: DyHead | StackedDyHead, levels: list[Tensor]
) -> dict[tuple[int, int], OffsetStatistics]:
    """Describe the offsets on a pyramid by block and level.

    Returns:
        By the number of the block and of the level, both from 0; empty without offsets. The blocks
        of `scheme: stacked` have those of the median level only.
    """
    return {
        (number, level.grid): offset_statistics(sampling.offset, sampling.mask)
        for number, block in enumerate(trace_blocks(dyhead, levels))
        for level in block.levels
        if (sampling := level.candidates[0].sampling) is not None
    }


def measure_changes(levels: list[Tensor], attended: list[Tensor]) -> list[ChangeStatistics]:
    """Describe by level what DyHead with a residual has added to a pyramid."""
    changes = []
    for before, after in zip(levels, attended, strict=True):
        rms, added = (x.float().square().mean().sqrt() for x in (before, after - before))
        changes.append(ChangeStatistics(float(rms), float(added / rms.clamp(min=TINY))))
    return changes


def warn_of_little_change(changes: Sequence[ChangeStatistics]) -> None:
    """Warn of a DyHead that hardly touches the pyramid: it is all but off."""
    if not changes or max(each.change for each in changes) >= LEAST_CHANGE:
        return
    logger.warning(
        "DyHead is all but off: it changes no level of the pyramid by more than %.1f %%, whose "
        "maps have a root mean square of %.2g to %.2g; model.fpn_norm=group brings them to 1, and "
        "model.dyhead.residual_scale multiplies what DyHead adds",
        100 * max(each.change for each in changes),
        min(each.pyramid_rms for each in changes),
        max(each.pyramid_rms for each in changes),
    )


def warn_of_lost_offsets(measured: Mapping[tuple[int, int], OffsetStatistics]) -> None:
    """Warn of blocks whose offsets leave the map."""
    lost = {key: each for key, each in measured.items() if each.share_outside > MOST_OUTSIDE}
    if not lost:
        return
    (block, level), worst = max(lost.items(), key=lambda item: item[1].share_outside)
    logger.warning(
        "DyHead's offsets leave the map: %.0f %% of the taps of block %d on level %d (offsets up "
        "to %.0f pixels, %.0f %% of the masks at 0 or 1), and as bad in %d other pairs of block "
        "and level; lower optim.offset_lr_factor or optim.lr",
        100 * worst.share_outside,
        block,
        level,
        worst.max_offset,
        100 * worst.mask_saturation,
        len(lost) - 1,
    )
