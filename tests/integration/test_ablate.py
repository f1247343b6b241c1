"""The script that ablates: one table of several runs, which goes on where it was stopped."""

import csv
import sys
from pathlib import Path

import pytest

from dyhead_det.config.file import to_yaml

from conftest import make_config

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def ablate(tiny_dataset, tmp_path, monkeypatch):
    """The script as a function of its arguments, on a run of two steps."""
    monkeypatch.syspath_prepend(SCRIPTS)
    import ablate
    import grid_runs

    base = tmp_path / "base.yaml"
    config = make_config(tiny_dataset, train={"steps": 2, "batch_size": 2, "log_every_steps": 1})
    base.write_text(to_yaml(config))

    def run(*arguments):
        where = ["--out", str(tmp_path / "out"), "--device", "cpu"]
        monkeypatch.setattr(sys, "argv", ["ablate.py", str(base), *where, *arguments])
        return ablate.main()

    run.module, run.out = grid_runs, tmp_path / "out"
    return run


@pytest.mark.slow
def test_rows_are_run_once_and_shown_in_a_table_and_a_picture(ablate, monkeypatch, caplog):
    assert ablate("--only", "plain", "levels") == 0
    assert "--- run 2 of 2: all, about " in caplog.text
    monkeypatch.setattr(ablate.module, "train", None)  # nothing is left to do
    assert ablate("--only", "plain", "levels", "all", "blocks-1") == 0
    with (ablate.out / "ablation.csv").open() as file:
        rows = {row["row"]: row for row in csv.DictReader(file)}
    # Rows that ask for the same run share it, whether they were asked for or not.
    assert {name: row["run"] for name, row in rows.items()} == {
        "plain": "plain",
        **dict.fromkeys(("all", "blocks-1", "levels", "resized"), "all"),
    }
    assert int(rows["plain"]["num_parameters"]) < int(rows["all"]["num_parameters"])
    table = (ablate.out / "ablation.md").read_text()
    assert "| plain | no DyHead |" in table
    assert "| levels | levels (= all) |" in table
    assert (ablate.out / "ablation.png").read_bytes().startswith(b"\x89PNG")


def test_a_row_that_fails_is_told_and_the_others_go_on(ablate, monkeypatch):
    tried = []

    def failing(_config, folder, **_keywords):
        tried.append(folder.name)
        raise ValueError("no such luck")

    monkeypatch.setattr(ablate.module, "train", failing)
    assert ablate("--only", "plain", "stacked") == 1
    assert tried == ["plain", "stacked"]
    assert "stacked failed: ValueError: no such luck" in (ablate.out / "ablation.md").read_text()
