"""Arguments of prediction: their bounds and defaults, the same in Python and on the command line.

Nothing heavy is imported here, so that `--help` can show them at once.
"""

import operator
from typing import Literal, get_args

MIN_SCORE = 0.3
"""What scores less is left out, unless another bound is given."""
AUTO: Literal["auto"] = "auto"
"""In place of a bound of the score: that with the highest F1 of each class in validation."""
MinScore = float | Literal["auto"]
Amp = Literal["off", "bf16", "fp16"]
"""Half precision in which a detector computes, as in `train.amp`."""
MAX_EDGE = 16384
"""Pixels of the edges that an image is resized to, as in `model.input`."""
MAX_BATCH_SIZE = 65536
"""Images that go through the detector together, as in `train.batch_size`."""
MAX_DETECTIONS = 10**6
"""Objects of an image, as in `eval.max_detections`: what scores them counts in 32 bits."""

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
