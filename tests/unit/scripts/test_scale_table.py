"""The page on scale has the tables that its script makes."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def main(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    from scale_table import main

    return main


def test_the_page_has_these_tables(main, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["scale_table.py"])
    main()
    page = (ROOT / "docs" / "scale.md").read_text()
    for table in capsys.readouterr().out.strip().split("\n\n"):
        assert table in page


def test_own_figures_go_in(main, monkeypatch, capsys):
    # 100 GMACs are 0.6 TFLOP for forward and backward: 0.6 s on a GPU that does one a second.
    given = ["--gmacs", "100", "--peak-tflops", "2", "--share", "0.5", "--batch-per-gpu", "1"]
    monkeypatch.setattr(sys, "argv", ["scale_table.py", *given])
    main()
    assert "| 1 | 1 | 600 | 2 |" in capsys.readouterr().out
