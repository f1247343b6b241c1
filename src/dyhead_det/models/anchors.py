"""Anchors by level, as `anchor_sizes` and `anchor_ratios` of a configuration say."""

from collections.abc import Sequence

from torchvision.models.detection.anchor_utils import AnchorGenerator

from dyhead_det.config.schema import Compat
from dyhead_det.models.compat.anchors import Detectron2AnchorGenerator
from dyhead_det.models.full_precision import FullPrecisionAnchorGenerator


def build_anchor_generator(
    sizes: Sequence[Sequence[float]], ratios: Sequence[float], *, compat: Compat
) -> AnchorGenerator:
    """Return anchors of the given sizes at every ratio, per level.

    Args:
        sizes: Per level the square roots of anchors' areas, in pixels.
        ratios: Height / width.
        compat: Whose rounding and order.
    """
    generator = FullPrecisionAnchorGenerator if compat == "none" else Detectron2AnchorGenerator
    return generator(tuple(map(tuple, sizes)), (tuple(ratios),) * len(sizes))
