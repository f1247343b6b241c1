"""Early stopping: a run ends when AP has not risen for some evaluations in a row."""

from dataclasses import dataclass


@dataclass(slots=True)
class EarlyStopping:
    """Counts the evaluations since AP last rose.

    patience: evaluations without a rise after which the run ends.
    min_delta: what AP must rise by to count.
    reference: AP of the last rise.
    num_without_rise: evaluations since.
    """

    patience: int
    min_delta: float
    reference: float | None = None
    num_without_rise: int = 0

    @property
    def is_over(self) -> bool:
        """Whether the run shall end."""
        return self.num_without_rise >= self.patience

    def note(self, ap: float) -> None:
        """Take in the result of an evaluation."""
        if self.reference is None or ap > self.reference + self.min_delta:
            self.reference, self.num_without_rise = ap, 0
        else:
            self.num_without_rise += 1
