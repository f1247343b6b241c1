"""metrics.jsonl: one row of losses every few steps, one row of COCO numbers per evaluation."""

import json
from pathlib import Path

from dyhead_det.files import written_whole

Row = dict[str, float | int | None]


def append_row(path: Path, row: Row) -> None:
    """Add a row at the end."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def read_rows(path: Path) -> list[Row]:
    """Return the rows, without a last one that was cut off by a crash."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def keep_rows(path: Path, *, last_step: int, evaluated_step: int) -> None:
    """Drop what a resumed run will write again: rows after the checkpoint it continues from."""
    kept = [
        row
        for row in read_rows(path)
        if (row["step"] or 0) <= (evaluated_step if "AP" in row else last_step)
    ]
    with written_whole(path) as unfinished:
        unfinished.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
