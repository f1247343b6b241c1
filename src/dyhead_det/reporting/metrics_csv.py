"""metrics.csv: metrics.jsonl as a table for spreadsheets, always made from it as a whole."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from dyhead_det.escaping import csv_cell
from dyhead_det.files import written_whole


def write_csv(rows: Sequence[Mapping[str, float | str | None]], path: Path) -> None:
    """Write one line per row; what a row does not have is an empty cell.

    Args:
        rows: losses and COCO numbers, or other numbers and texts, by name.
        path: the file, written whole or not at all.
    """
    columns = dict.fromkeys(name for row in rows for name in row)  # in order of appearance
    # No translation of line ends: the csv module writes them itself.
    with written_whole(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as f:
        table = csv.writer(f)
        table.writerow([csv_cell(name) for name in columns])
        table.writerows([_cell(row.get(name)) for name in columns] for row in rows)


def _cell(value: float | str | None) -> float | str | None:
    return csv_cell(value) if isinstance(value, str) else value
