"""How far a run has come (`Progress`), and what `last.pt` keeps of it (`TrainState`)."""

from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any

from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError

from dyhead_det.errors import CheckpointError
from dyhead_det.training.early_stopping import EarlyStopping

Count = Annotated[int, Field(ge=0)]

# COCO numbers by name; None where nothing is annotated.
Metrics = dict[str, float | None]


@dataclass(slots=True)
class LossSums:
    """Losses and gradient norm, summed since the last row of metrics.jsonl.

    sums: By name.
    num_steps: How many steps are in them.
    """

    sums: dict[str, float] = field(default_factory=dict)
    num_steps: Count = 0

    def add(self, values: dict[str, float]) -> None:
        """Add the values of a step."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.num_steps += 1

    def take_means(self) -> dict[str, float]:
        """Return the means and start anew."""
        means = {name: value / self.num_steps for name, value in self.sums.items()}
        self.sums, self.num_steps = {}, 0
        return means


@dataclass(slots=True)
class Progress:
    """The plain values of a run that change as it goes.

    step: Steps done.
    evaluated_step: The step of the last evaluation.
    metrics: COCO numbers of that evaluation.
    best: Those of the best one, and its `step`; empty before the first.
    losses: For the next row of metrics.jsonl.
    early_stopping: None where nothing stops the run early.
    min_scores: Of each class the bound of the score with the highest F1 in the last evaluation.
    """

    step: Count
    evaluated_step: Count
    metrics: Metrics
    best: Metrics
    losses: LossSums
    early_stopping: EarlyStopping | None
    min_scores: dict[str, FiniteFloat] | None = None

    @classmethod
    def at_start(cls, early_stopping: EarlyStopping | None = None) -> "Progress":
        """Return the values before the first step."""
        return cls(0, 0, {}, {}, LossSums(), early_stopping)


@dataclass(frozen=True, slots=True)
class EMAState:
    """With EMA a checkpoint's model is the average; this is what it takes to go on averaging.

    num_averaged: Updates so far.
    trained_model: State dict of the weights that are trained.
    """

    num_averaged: Count
    trained_model: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DataFingerprint:
    """What tells whether a run goes on with the same training data."""

    num_images: Count
    digest: str


@dataclass(frozen=True, slots=True)
class TrainState:
    """The section `training` of `last.pt`: all that a run goes on from, besides the model.

    progress: The plain values.
    optimizer: State dict.
    scaler: State dict of the gradient scaler, empty but under fp16.
    ema: None where no average is kept.
    data: Of the training data.
    world_size: Number of ranks, for a message; a run may go on with another.
    """

    progress: Progress
    optimizer: dict[str, Any]
    scaler: dict[str, int | FiniteFloat]
    ema: EMAState | None
    data: DataFingerprint
    world_size: Count

    def to_plain(self) -> dict[str, Any]:
        """Return plain values and tensors, as they are stored; no tensor is copied."""
        return {
            "progress": asdict(self.progress),
            "optimizer": self.optimizer,
            "scaler": self.scaler,
            "ema": None if self.ema is None else _shallow(self.ema),
            "data": asdict(self.data),
            "world_size": self.world_size,
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any], source: object) -> "TrainState":
        """Read what `to_plain` returned.

        Args:
            plain: The section of a checkpoint.
            source: The file, for messages.

        Raises:
            CheckpointError: If something is missing, of another type or out of bounds.
        """
        try:
            return TypeAdapter(cls).validate_python(plain)
        except ValidationError as error:
            wrong = ", ".join(".".join(map(str, problem["loc"])) for problem in error.errors())
            raise CheckpointError(
                f"{source}: the state of the run is incomplete or damaged: {wrong}; start a new "
                "run from its weights by model.weights"
            ) from error


def _shallow(state: EMAState) -> dict[str, Any]:
    """Return the fields; `asdict` would copy every tensor."""
    return {of.name: getattr(state, of.name) for of in fields(state)}
