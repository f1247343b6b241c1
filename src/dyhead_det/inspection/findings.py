"""Findings of a check: what, how grave, where, and every record that it holds for."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dyhead_det.data.coco.problems import AnnotationProblems, shorten
from dyhead_det.files import written_whole
from dyhead_det.tables import write_csv

Severity = Literal["error", "warning", "note"]
CHECK_FILES = ("check.json", "check.csv")


class Finding(NamedTuple):
    """A kind of finding and all that it holds for.

    severity: an error ends training or is refused by it; a warning is repaired or looks wrong; a
    note is worth knowing. where: the annotation file, or both files. items: ids or names; none
    where the kind says all.
    """

    severity: Severity
    where: str
    kind: str
    items: tuple[str, ...] = ()

    def line(self) -> str:
        """Return one line: how many, and the first ones."""
        if not self.items:
            return f"{self.severity}: {self.kind}"
        shown = shorten(self.items, len(self.items))
        return f"{self.severity}: {self.kind}: {len(self.items)} ({shown})"


def findings_of(problems: AnnotationProblems, where: str) -> list[Finding]:
    """Return the problems of a part of a data set, the worst first."""
    kinds: tuple[tuple[Severity, dict[str, list[object]]], ...] = (
        ("error", problems.refused),
        ("warning", problems.repaired),
        ("note", problems.noted),
    )
    return [
        Finding(severity, where, kind, tuple(map(str, items)))
        for severity, by_kind in kinds
        for kind, items in by_kind.items()
    ]


def write_findings(
    folder: Path, findings: Sequence[Finding], datasets: Iterable[dict[str, Any]]
) -> None:
    """Write `check.json` and `check.csv` with every item of every finding.

    Args:
        folder: it is there.
        findings: in the order to keep.
        datasets: what was checked, as plain values.
    """
    document = {
        "is_usable": all(finding.severity != "error" for finding in findings),
        "datasets": list(datasets),
        "findings": [
            {**finding._asdict(), "count": len(finding.items) or 1} for finding in findings
        ],
    }
    json_name, csv_name = CHECK_FILES
    with written_whole(folder / json_name) as unfinished:
        text = json.dumps(document, indent=1, ensure_ascii=False)
        # Half of a surrogate pair, which a name may be, has no bytes in UTF-8.
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")
    rows = ((*finding[:3], item) for finding in findings for item in finding.items or ("",))
    write_csv(folder / csv_name, ("severity", "where", "kind", "item"), rows)
