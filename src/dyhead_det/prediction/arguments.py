"""Arguments of prediction: their bounds and defaults, the same in Python and on the command line.

Nothing heavy is imported here, so that `--help` can show them at once.
"""

import operator
from dataclasses import dataclass
from typing import Literal, get_args

from dyhead_det.config.precision import Amp

MIN_SCORE = 0.3
"""What scores less is left out, unless another bound is given."""
AUTO: Literal["auto"] = "auto"
"""In place of a bound of the score: that with the highest F1 of each class in validation."""
MinScore = float | Literal["auto"]
MAX_EDGE = 16384
"""Pixels of the edges that an image is resized to, as in `model.input`."""
MAX_BATCH_SIZE = 65536
"""Images that go through the detector together, as in `train.batch_size`."""
MAX_DETECTIONS = 10**6
"""Objects of an image, as in `eval.max_detections`: what scores them counts in 32 bits."""

MIN_TILE = 64
"""Pixels of the edge of a tile: smaller ones show parts of things."""
TILE_OVERLAP = 0.2
"""Share of its edge that a tile has in common with the next one, at least."""
MAX_TILE_OVERLAP = 0.9
FLIP = "flip"
"""What asks for a look from left to right, in test-time augmentation."""
MIN_SCALE, MAX_SCALE = 0.25, 4.0
"""Bounds of the other scales."""

MAX_WORKERS = 256
"""Threads that read and draw beside the detector."""


def require_score(name: str, value: float) -> float:
    """Return a score.

    Args:
        name: Of the argument, for the error.
        value: In [0, 1].

    Raises:
        ValueError: If it is out of range, NaN or no number.
    """
    try:
        is_score = 0 <= value <= 1  # NaN is not
    except TypeError:
        is_score = False
    if not is_score:
        msg = f"{name} is a number from 0 to 1, not {value!r}"
        raise ValueError(msg)
    return float(value)


def require_count(name: str, value: int, *, most: int | None = None) -> int:
    """Return a whole number from 1 on.

    Args:
        name: Of the argument, for the error.
        value: Any integer type, NumPy's too.
        most: Bound of it.

    Raises:
        ValueError: If it is less or more, or no whole number.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1 or (most is not None and number > most) or isinstance(value, bool):
        bounds = "a whole number from 1 on" if most is None else f"a whole number from 1 to {most}"
        msg = f"{name} is {bounds}, not {value!r}"
        raise ValueError(msg)
    return number


def require_edges(short_edge: int | None, long_edge: int | None) -> None:
    """Check the edges that images are resized to; None is as in training.

    Raises:
        ValueError: Naming the one that is no number of pixels.
    """
    for name, value in {"short_edge": short_edge, "long_edge": long_edge}.items():
        if value is not None:
            require_count(name, value, most=MAX_EDGE)


def require_amp(amp: str) -> None:
    """Check the precision to compute in.

    Raises:
        ValueError: If it is not one of `Amp`.
    """
    if amp not in get_args(Amp):
        msg = f"amp is one of {', '.join(get_args(Amp))}, not {amp!r}"
        raise ValueError(msg)


@dataclass(frozen=True)
class Views:
    """In which ways to look at an image besides once at the whole.

    Attributes:
        tile: Edge of tiles in pixels; None for none.
        tile_overlap: Share of it that neighbors have in common, 0 to 0.9; None for 0.2.
        tta: Test-time augmentation: `flip`, and factors of the size that images are resized to,
            separated by commas.

    Raises:
        ValueError: Where one is out of range, naming it.
    """

    tile: int | None = None
    tile_overlap: float | None = None
    tta: str = ""

    def __post_init__(self) -> None:
        if self.tile is not None and require_count("tile", self.tile) < MIN_TILE:
            msg = f"tile is a whole number of pixels from {MIN_TILE} on, not {self.tile!r}"
            raise ValueError(msg)
        if self.tile_overlap is not None:
            if self.tile is None:
                msg = "tile_overlap goes with tile"
                raise ValueError(msg)
            if not require_score("tile_overlap", self.tile_overlap) <= MAX_TILE_OVERLAP:
                msg = f"tile_overlap is at most {MAX_TILE_OVERLAP}, not {self.tile_overlap!r}"
                raise ValueError(msg)
        _ = self.scales

    @property
    def overlap(self) -> float:
        """Share of its edge that a tile has in common with the next one."""
        return TILE_OVERLAP if self.tile_overlap is None else float(self.tile_overlap)

    @property
    def flip(self) -> bool:
        """Whether to look from left to right too."""
        return FLIP in self._parts

    @property
    def scales(self) -> tuple[float, ...]:
        """The scales besides 1, in ascending order."""
        scales = {_read_scale(part) for part in self._parts if part != FLIP}
        return tuple(sorted(scales - {1.0}))

    @property
    def _parts(self) -> list[str]:
        return [part.strip() for part in self.tta.split(",")] if self.tta else []

    def to_call(self) -> dict[str, object]:
        """Return what results depend on, by names that people know."""
        return {
            "tile": self.tile,
            "tile overlap": None if self.tile is None else self.overlap,
            "tta": [*([FLIP] if self.flip else []), *self.scales],
        }


def _read_scale(text: str) -> float:
    try:
        scale = float(text)
    except ValueError:
        scale = 0.0
    if not MIN_SCALE <= scale <= MAX_SCALE:
        msg = f"tta is {FLIP} and scales from {MIN_SCALE} to {MAX_SCALE:g}, as in "
        msg += f"{FLIP},0.8,1.2, not {text!r}"
        raise ValueError(msg)
    return scale
