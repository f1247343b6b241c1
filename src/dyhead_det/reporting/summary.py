"""Summary of a run for the terminal: AP by class at the best step, and where the report lies."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from dyhead_det.escaping import printable
from dyhead_det.evaluation.coco_scores import decimal
from dyhead_det.reporting.metrics_file import Row
from dyhead_det.tables import text_table


def run_summary(
    rows: Sequence[Row],
    *,
    best_step: int | None,
    num_objects: Mapping[str, int],
    report: Path,
) -> str:
    """Return the lines that end a training run.

    Args:
        rows: of metrics.jsonl.
        best_step: step of the best evaluation, None without one.
        num_objects: annotated objects of each class in the validation data.
        report: path of report.html.
    """
    evaluated = [row for row in rows if "AP" in row and row["step"] == best_step]
    lines = [f"report: {printable(report)}"]
    if evaluated:
        table = text_table(
            ("class", "boxes", "AP"),
            [
                (name, number, decimal(evaluated[-1].get(f"AP/{name}")))
                for name, number in num_objects.items()
            ],
        )
        lines = [table, "", *lines]
    return "\n".join(lines)
