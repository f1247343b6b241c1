"""What a pyramid of feature maps is: each level half the size of the one before, in two containers.

A list of maps, or a dict of maps by level name as torchvision's `FeaturePyramidNetwork` returns it;
both fine to coarse.
"""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

from torch import Tensor

Pyramid = TypeVar("Pyramid", list[Tensor], dict[str, Tensor], OrderedDict[str, Tensor])


def list_levels(pyramid: Sequence[Tensor] | dict[str, Tensor], *, channels: int) -> list[Tensor]:
    """Return the maps of a pyramid, fine to coarse.

    Raises:
        ValueError: see `check_pyramid`.
    """
    levels = list(pyramid.values() if isinstance(pyramid, dict) else pyramid)
    check_pyramid(levels, channels=channels)
    return levels


def with_levels(pyramid: Pyramid, levels: list[Tensor]) -> Pyramid:
    """Return maps in a container like the given one: a list, or a dict with the same names."""
    if isinstance(pyramid, dict):
        filled = pyramid.copy()
        filled.update(zip(pyramid, levels, strict=True))
        return filled
    return levels


def check_pyramid(levels: Sequence[Tensor], *, channels: int) -> None:
    """Refuse maps that are no pyramid: at least one, each half (rounded up) the one before.

    Args:
        levels: Maps (B, C, H_l, W_l), fine to coarse.
        channels: C.

    Raises:
        ValueError: naming the first level that does not fit.
    """
    if not levels:
        raise ValueError("DyHead needs at least one pyramid level, got none")
    if levels[0].ndim != 4 or levels[0].shape[1] != channels:
        raise ValueError(
            f"DyHead of {channels} channels needs a list or dict of maps (B, {channels}, H, W), "
            f"level 0 is {tuple(levels[0].shape)}"
        )
    for level, (finer, coarser) in enumerate(pairwise(levels), start=1):
        expected = (*finer.shape[:2], *(-(-size // 2) for size in finer.shape[2:]))
        if tuple(coarser.shape) != expected:
            raise ValueError(
                f"level {level - 1} is {tuple(finer.shape)}, so DyHead needs {expected} for level "
                f"{level} (half the size, rounded up), got {tuple(coarser.shape)}; pad the images "
                f"to a multiple of the coarsest level's stride"
            )
