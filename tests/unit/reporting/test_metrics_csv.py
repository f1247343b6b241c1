"""The table for spreadsheets says what the rows say."""

import csv

from dyhead_det.reporting.metrics_csv import write_csv


def test_each_row_is_a_line_and_missing_numbers_are_empty(tmp_path):
    rows = [
        {"step": 2, "epoch": 0.5, "loss": 0.1 + 0.2},
        {"step": 4, "epoch": 1.0, "AP": None, 'AP/cat, the "big" one': 0.25},
        {"step": 6, "epoch": 1.5, "loss": 1e-9},
    ]
    write_csv(rows, tmp_path / "metrics.csv")
    with (tmp_path / "metrics.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["step", "epoch", "loss", "AP", 'AP/cat, the "big" one']
    read = [{name: float(value) for name, value in line.items() if value} for line in lines]
    written = [{name: value for name, value in row.items() if value is not None} for row in rows]
    assert read == written  # to the last digit
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_a_name_is_no_formula_and_no_second_line(tmp_path):
    write_csv([{"=1+1": 1, "AP/a\nb": 2}], tmp_path / "metrics.csv")
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["'=1+1,AP/a\\nb", "1,2"]


def test_no_rows_make_an_empty_table(tmp_path):
    write_csv([], tmp_path / "metrics.csv")
    assert (tmp_path / "metrics.csv").read_text().strip() == ""
