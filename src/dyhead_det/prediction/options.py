"""What is asked of a prediction: the options that its results depend on."""

from dataclasses import dataclass
from typing import Literal, get_args

from dyhead_det.prediction.arguments import (
    AUTO,
    MAX_BATCH_SIZE,
    MAX_DETECTIONS,
    MIN_SCORE,
    MinScore,
    require_count,
    require_score,
)

Output = Literal["pictures", "json", "csv", "yolo", "crops"]
OUTPUTS: tuple[Output, ...] = get_args(Output)
DEFAULT_OUTPUTS: tuple[Output, ...] = ("pictures", "json")


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """How to find objects in many images.

    Attributes:
        min_score: leave out what scores less; `auto` is as in `Predictor.predict`.
        classes: keep these classes only; empty means all.
        max_detections: keep so many per image, best first.
        batch_size: images that go through the detector together.

    Raises:
        ValueError: where one is out of range, naming it.
    """

    min_score: MinScore = MIN_SCORE
    classes: tuple[str, ...] = ()
    max_detections: int | None = None
    batch_size: int = 1

    def __post_init__(self) -> None:
        require_count("batch_size", self.batch_size, most=MAX_BATCH_SIZE)
        if self.min_score != AUTO:
            require_score("min_score", self.min_score)
        if self.max_detections is not None:
            require_count("max_detections", self.max_detections, most=MAX_DETECTIONS)
