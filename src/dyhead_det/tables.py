"""Tables: rows of cells as aligned text for a terminal, as Markdown, or as a CSV file."""

import csv
import itertools
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from dyhead_det.escaping import csv_cell, markdown_text, printable
from dyhead_det.files import written_whole

# A number with what may stand around it ("12 (50%)"), or the dash in place of one.
_NUMBER = re.compile(r"\s*([-+]?\.?\d|-$|nan$)")

# Characters; one name of a million would make every line as long.
_LONGEST_CELL = 200


def text_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return lines for a terminal: columns two spaces apart, those of numbers to the right.

    Args:
        header: what each column holds.
        rows: cells, as many as the header has; control characters in them are escaped.
    """
    cells = [
        [printable(cell, max_length=_LONGEST_CELL) for cell in line] for line in (header, *rows)
    ]
    is_number = number_columns(cells[1:]) or [False] * len(header)
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    lines = []
    for line in cells:
        padding = [" " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)]
        aligned = [
            f"{pad}{cell}" if right else f"{cell}{pad}"
            for cell, pad, right in zip(line, padding, is_number, strict=True)
        ]
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines)


def markdown_table(
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    escape: Callable[[object], str] = markdown_text,
) -> str:
    """Return a Markdown table, its columns of numbers to the right.

    Args:
        header: what each column holds.
        rows: cells, as many as the header has.
        escape: makes the text of a cell; `str` where cells are Markdown themselves.
    """
    cells = [[escape(cell) for cell in line] for line in (header, *rows)]
    is_number = number_columns(cells[1:]) or [False] * len(header)
    rule = ["---:" if right else "---" for right in is_number]
    return "\n".join(f"| {' | '.join(line)} |" for line in (cells[0], rule, *cells[1:]))


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table for spreadsheets, whole or not at all; no text is taken for a formula.

    Args:
        path: the file.
        header: what each column holds.
        rows: cells, taken one row after the other; None is an empty cell.
    """
    # No translation of line ends: the csv module writes them itself.
    with written_whole(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as f:
        writer = csv.writer(f)
        for line in itertools.chain([header], rows):
            writer.writerow([csv_cell(cell) if isinstance(cell, str) else cell for cell in line])


def number_columns(rows: Iterable[Sequence[object]]) -> list[bool]:
    """Return which columns hold nothing but numbers and dashes; there are none without rows."""
    return [all(_NUMBER.match(str(cell)) for cell in column) for column in zip(*rows, strict=True)]


def _width(text: str) -> int:
    """Return the columns that a text takes on a terminal, where Chinese letters take two."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))
