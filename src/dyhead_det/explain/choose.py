"""Which detection, pixel and level of an image are looked at."""

import logging
from typing import NamedTuple

from dyhead_det.config.schema import did_you_mean
from dyhead_det.errors import ConfigError
from dyhead_det.escaping import listed
from dyhead_det.prediction.detections import Detections, labels_of

logger = logging.getLogger(__name__)


class Choice(NamedTuple):
    """What is looked at: (x, y) in pixels of the image, and the detection whose middle it is."""

    point: tuple[float, float]
    detection: int | None = None


def choose(
    detections: Detections,
    size_hw: tuple[int, int],
    *,
    box: int | None,
    at: tuple[float, float] | None,
    class_name: str | None,
) -> Choice:
    """Find what was asked for among the detections; arguments and errors are those of `explain`."""
    if sum(choice is not None for choice in (box, at, class_name)) > 1:
        raise ValueError("give one of box, at and class_name")
    height, width = size_hw
    if at is not None:
        if not (0 <= at[0] < width and 0 <= at[1] < height):
            raise ConfigError(
                f"at: ({at[0]:g}, {at[1]:g}) is outside the image, which has {width} x {height} "
                "pixels"
            )
        return Choice(at)
    if class_name is not None:
        (label,) = labels_of(detections.categories, [class_name])
        found = (detections.labels == label).nonzero()[0].tolist()
        if not found:
            raise ConfigError(f"no {class_name!r} was found; give a lower min_score, or a pixel")
        return _middle(detections, found[0])
    if box is not None and not 1 <= box <= len(detections):
        raise ConfigError(
            f"box: no number {box}, {len(detections)} objects were found; give a lower min_score, "
            "or a pixel"
        )
    if box is None and not detections:
        logger.warning("no object was found: the middle of the image is looked at")
        return Choice((width / 2, height / 2))
    return _middle(detections, (box or 1) - 1)


def _middle(detections: Detections, index: int) -> Choice:
    left, top, right, bottom = detections[index].box
    return Choice(((left + right) / 2, (top + bottom) / 2), index)


def level_named(name: str, names: tuple[str, ...]) -> int:
    """Return the position of a level.

    Raises:
        ConfigError: where the detector has none of that name.
    """
    if name not in names:
        raise ConfigError(f"level: no {name!r}; {did_you_mean(name, names)}one of {listed(names)}")
    return names.index(name)
