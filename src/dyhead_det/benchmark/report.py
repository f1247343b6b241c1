"""The results of a benchmark: a table, a CSV file, a JSON file and a picture."""

import json
from collections.abc import Sequence
from pathlib import Path

from dyhead_det.benchmark.rounds import Result
from dyhead_det.files import written_whole
from dyhead_det.reporting.metrics_csv import write_csv
from dyhead_det.tables import text_table
from dyhead_det.visualize.bars import draw_bars

NAMES = ("benchmark.csv", "benchmark.json", "benchmark.png")

_COLUMNS = ("file", "precision", "size", "batch", "threads")
_NUMBERS = ("median ms", "p90 ms", "images/s", "x", "peak MiB")


def table(results: Sequence[Result]) -> str:
    """Lay out the results for a terminal; x is relative to the first contestant of each case."""
    rows = [
        [
            *(str(row[name]) for name in _COLUMNS),
            f"{row['median ms']:.1f}",
            f"{row['p90 ms']:.1f}",
            f"{row['images/s']:.2f}",
            f"{row['x']:.2f}",
            f"{row['peak MiB']:.0f}",
        ]
        for row in as_rows(results)
    ]
    return text_table([*_COLUMNS, *_NUMBERS], rows)


def as_rows(results: Sequence[Result]) -> list[dict[str, str | float]]:
    """Return the numbers of each result by name."""
    baselines = {result.case: result for result in reversed(results)}  # the first of each case
    return [
        {
            "file": str(result.contestant.path),
            "precision": result.precision,
            "size": "x".join(map(str, result.case.size_hw)),
            "batch": result.case.batch_size,
            "threads": result.case.num_threads,
            "median ms": 1000 * result.median,
            "p90 ms": 1000 * result.p90,
            "images/s": result.images_per_second,
            "x": result.speedup(baselines[result.case]),
            "peak MiB": result.peak_mib,
        }
        for result in results
    ]


def write_report(results: Sequence[Result], folder: Path, *, machine: str) -> None:
    """Write the three files of `NAMES`, each whole or not at all.

    Args:
        results: of all cases.
        folder: where to.
        machine: what was measured on.
    """
    rows = as_rows(results)
    csv_path, json_path, picture_path = (folder / name for name in NAMES)
    write_csv(rows, csv_path)
    document = {
        "machine": machine,
        "results": [
            {**row, "seconds": result.rounds} for row, result in zip(rows, results, strict=True)
        ],
    }
    with written_whole(json_path) as unfinished:
        unfinished.write_text(json.dumps(document, indent=1), encoding="utf-8")
    groups: dict[str, dict[str, float]] = {}
    for row in rows:
        threads = "1 thread" if row["threads"] == 1 else f"{row['threads']} threads"
        group = f"{row['size']}, batch {row['batch']}, {threads}"
        name = f"{Path(str(row['file'])).name} ({row['precision']})"
        bars = groups.setdefault(group, {})
        bars[f"{name} {len(bars) + 1}" if name in bars else name] = float(row["images/s"])
    draw_bars(groups, "images per second", picture_path)
