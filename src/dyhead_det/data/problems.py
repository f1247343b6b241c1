"""Collect what is wrong in one annotation file: one warning for repairs, one error for the rest."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from dyhead_det.errors import DatasetError

logger = logging.getLogger(__name__)

_NUM_SHOWN = 5


@dataclass(frozen=True)
class AnnotationProblems:
    """Problems of one annotation file by kind, each with the ids of the records that have it.

    The kinds keep the order in which they were found.
    """

    annotations_path: Path
    repaired: dict[str, list[object]] = field(default_factory=dict)
    refused: dict[str, list[object]] = field(default_factory=dict)

    def repair(self, kind: str, ids: Iterable[object]) -> None:
        """Note records that were repaired or dropped; no ids, no note."""
        _append(self.repaired, kind, ids)

    def refuse(self, kind: str, ids: Iterable[object]) -> None:
        """Note records that make the file unusable; no ids, no note."""
        _append(self.refused, kind, ids)

    def conclude(self) -> None:
        """Tell everything: nothing, one warning, or one error.

        Raises:
            DatasetError: if any record was refused.
        """
        if self.refused:
            raise DatasetError(
                f"{self.annotations_path} cannot be used: {_summary(self.refused)}; "
                f"correct the file, or remove these records from it"
            )
        if self.repaired:
            logger.warning("%s was repaired: %s", self.annotations_path, _summary(self.repaired))


def shorten(names: Iterable[object], total: int) -> str:
    """Return the first few names, and how many more there are."""
    shown = ", ".join(str(name) for name in islice(names, _NUM_SHOWN))
    more = total - _NUM_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _append(problems: dict[str, list[object]], kind: str, ids: Iterable[object]) -> None:
    listed = list(ids)
    if listed:
        problems.setdefault(kind, []).extend(listed)


def _summary(problems: dict[str, list[object]]) -> str:
    return "; ".join(
        f"{kind}: {len(ids)} ({shorten(ids, len(ids))})" for kind, ids in problems.items()
    )
