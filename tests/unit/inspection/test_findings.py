"""Findings as lines and as files: a line names the first few, the files hold all."""

import csv
import json

from dyhead_det.inspection.findings import Finding, write_findings


def rows_of(folder):
    with (folder / "check.csv").open(newline="") as file:
        return list(csv.reader(file))


def test_a_line_names_the_first_few_and_the_files_all(tmp_path):
    many = Finding("warning", "a.json", "odd", tuple(map(str, range(9))))
    alone = Finding("error", "a.json", "nothing to train on")
    assert many.line() == "warning: odd: 9 (0, 1, 2, 3, 4 and 4 more)"
    assert alone.line() == "error: nothing to train on"
    write_findings(tmp_path, [alone, many], [{"split": "train"}])
    document = json.loads((tmp_path / "check.json").read_text())
    assert document["is_usable"] is False
    assert document["datasets"] == [{"split": "train"}]
    assert [finding["count"] for finding in document["findings"]] == [1, 9]
    assert document["findings"][1]["items"] == [*"012345678"]
    rows = rows_of(tmp_path)
    assert rows[0] == ["severity", "where", "kind", "item"]
    assert rows[1] == ["error", "a.json", "nothing to train on", ""]
    assert [row[3] for row in rows[2:]] == [*"012345678"]


def test_names_neither_compute_in_a_spreadsheet_nor_break_a_file(tmp_path):
    names = ("=1+1", "half \ud800", "line\nbreak")
    write_findings(tmp_path, [Finding("note", "a.json", "names", names)], [])
    items = [row[3] for row in rows_of(tmp_path)][1:]
    assert items == ["'=1+1", "half \\ud800", "line\\nbreak"]
    document = json.loads((tmp_path / "check.json").read_text())
    assert document["is_usable"] is True
    assert document["findings"][0]["items"][2] == "line\nbreak"
