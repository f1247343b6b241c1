"""Numbers of a benchmark: medians, rounds compared by themselves, and the files with them."""

import csv
import json
from pathlib import Path

import pytest
import typer

from dyhead_det.benchmark.report import NAMES, as_rows, table, write_report
from dyhead_det.benchmark.rounds import Result
from dyhead_det.benchmark.worker import Case, Contestant, example_images, serve
from dyhead_det.cli.deploy import parse_size
from dyhead_det.errors import DyHeadDetError

CASE = Case(size_hw=(48, 64), batch_size=2, num_threads=1)
SLOW = Result(
    Contestant(Path("best.pt"), "float32", "cpu"), CASE, "float32", [[0.2, 0.4], [2.0, 4.0]], 900.0
)
# Twice as fast in the first round, three times in the second, when the machine was busy.
FAST = Result(
    Contestant(Path("=m|$x$.onnx"), "float32", "cpu"), CASE, "int8", [[0.15, 0.15], [1, 1]], 200.0
)


def test_numbers_of_a_contestant():
    assert SLOW.median == 1.2
    assert SLOW.p90 == 4.0
    assert FAST.images_per_second == pytest.approx(2 / 0.575)


def test_a_round_is_compared_by_itself():
    assert FAST.speedup(SLOW) == pytest.approx((0.3 / 0.15 + 3.0) / 2)
    assert SLOW.speedup(SLOW) == 1


def test_nine_of_ten_runs_do_not_take_longer_than_p90():
    ten = Result(SLOW.contestant, CASE, "float32", [[float(n) for n in range(1, 11)]])
    assert ten.p90 == 9


def test_the_report_has_a_table_a_csv_a_json_and_a_picture(tmp_path):
    write_report([SLOW, FAST], tmp_path, machine="a computer")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES)
    with (tmp_path / "benchmark.csv").open(newline="") as file:
        slow, fast = csv.DictReader(file)
    assert (slow["file"], slow["x"]) == ("best.pt", "1.0")
    assert fast["file"].startswith("'=")  # no formula of a spreadsheet
    document = json.loads((tmp_path / "benchmark.json").read_text())
    assert document["results"][0]["seconds"] == SLOW.rounds
    assert (tmp_path / "benchmark.png").stat().st_size > 5000
    header, first, _ = table([SLOW, FAST]).splitlines()
    assert header.split()[:5] == ["file", "precision", "size", "batch", "threads"]
    assert first.split()[:5] == ["best.pt", "float32", "48x64", "2", "1"]
    assert first.split()[5:] == ["1200.0", "4000.0", "1.67", "1.00", "900"]
    assert [row["x"] for row in as_rows([SLOW, FAST])] == [1, 2.5]


def test_all_contestants_see_the_same_images():
    first, again = example_images(CASE), example_images(CASE)
    assert [image.shape for image in first] == [(3, 48, 64)] * 2
    assert all((a == b).all() for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("text", ["480", "480x", "0x640", "axb", "480x640x3", "480x99999", "-1x2"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(typer.BadParameter, match="HEIGHTxWIDTH"):
        parse_size(text)


def test_a_size_is_height_and_width():
    assert parse_size("480x640") == (480, 640)


def test_what_fails_while_it_is_loaded_is_told_with_its_file(monkeypatch):
    def fail(_contestant, _case):
        raise RuntimeError("no memory\nfor it")

    sent = []
    connection = type("Connection", (), {"send": lambda _self, answer: sent.append(answer)})()
    monkeypatch.setattr("dyhead_det.benchmark.worker._load_checkpoint", fail)
    serve(connection, SLOW.contestant, CASE)
    (answer,) = sent
    assert isinstance(answer, DyHeadDetError)
    assert str(answer) == "best.pt: cannot be run (no memory\\nfor it)"
