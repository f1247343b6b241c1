"""`compare` from the command line."""

import json

from typer.testing import CliRunner

from dyhead_det.cli.app import app


def test_two_runs_are_compared_and_written(tmp_path):
    for name, ap in (("one", 0.5), ("two", 0.25)):
        (tmp_path / name).mkdir()
        row = {"step": 5, "AP": ap, "AP/cat": ap, "num_images": 3, "num_boxes": 4}
        (tmp_path / name / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    out = tmp_path / "out"
    arguments = ["compare", str(tmp_path / "one"), str(tmp_path / "two"), "--out", str(out)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "0.500" in result.output
    assert "0.250" in result.output
    assert sorted(path.name for path in out.iterdir()) == [
        "compare.csv",
        "compare.json",
        "compare.png",
        "compare_classes.csv",
    ]
