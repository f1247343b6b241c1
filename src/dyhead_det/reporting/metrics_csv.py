"""metrics.csv: metrics.jsonl as a table for spreadsheets, always made from it as a whole."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from dyhead_det import tables


def write_csv(rows: Sequence[Mapping[str, float | str | None]], path: Path) -> None:
    """Write one line per row; what a row does not have is an empty cell.

    Args:
        rows: losses and COCO numbers, or other numbers and texts, by name.
        path: the file, written whole or not at all.
    """
    columns = dict.fromkeys(name for row in rows for name in row)  # in order of appearance
    tables.write_csv(path, list(columns), ([row.get(name) for name in columns] for row in rows))
