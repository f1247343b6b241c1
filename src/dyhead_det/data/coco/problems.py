"""Problems of one annotation file, collected by kind: refused, repaired, or worth knowing."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from dyhead_det.errors import DatasetError
from dyhead_det.escaping import printable

logger = logging.getLogger(__name__)

_NUM_SHOWN = 5
_LONGEST_NAME = 160  # characters


@dataclass(frozen=True)
class AnnotationProblems:
    """Problems of one annotation file by kind, each with the ids of the records that have it.

    The kinds keep the order in which they were found.

    Attributes:
        annotations_path: the file.
        refused: what makes the file unusable.
        repaired: what was repaired, dropped, or looks wrong; logged as one warning.
        noted: what is worth knowing; listed by `data check` only.
    """

    annotations_path: Path
    refused: dict[str, list[object]] = field(default_factory=dict)
    repaired: dict[str, list[object]] = field(default_factory=dict)
    noted: dict[str, list[object]] = field(default_factory=dict)

    def refuse(self, kind: str, ids: Iterable[object]) -> None:
        """Add records that make the file unusable; no ids, no problem."""
        _append(self.refused, kind, ids)

    def repair(self, kind: str, ids: Iterable[object]) -> None:
        """Add records that were repaired or dropped, or that look wrong."""
        _append(self.repaired, kind, ids)

    def note(self, kind: str, ids: Iterable[object]) -> None:
        """Add records that a person may want to know of."""
        _append(self.noted, kind, ids)

    def conclude(self) -> None:
        """Report everything: nothing, one warning, or one error.

        Raises:
            DatasetError: if any record was refused.
        """
        if self.refused:
            raise DatasetError(
                f"{self.annotations_path} cannot be used: {'; '.join(summary(self.refused))}; "
                f"correct the file, or remove these records from it"
            )
        if self.repaired:
            logger.warning(
                "%s was repaired: %s", self.annotations_path, "; ".join(summary(self.repaired))
            )


def summary(problems: dict[str, list[object]]) -> list[str]:
    """Return a phrase for each kind of problem: how many records have it, and the first ids."""
    return [f"{kind}: {len(ids)} ({shorten(ids, len(ids))})" for kind, ids in problems.items()]


def shorten(names: Iterable[object], total: int) -> str:
    """Return the first few names, and how many more there are."""
    shown = ", ".join(
        printable(name, max_length=_LONGEST_NAME) for name in islice(names, _NUM_SHOWN)
    )
    more = total - _NUM_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _append(problems: dict[str, list[object]], kind: str, ids: Iterable[object]) -> None:
    listed = list(ids)
    if listed:
        problems.setdefault(kind, []).extend(listed)
