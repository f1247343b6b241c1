"""Benchmarks run, at sizes that tell nothing, and lay out what belongs together."""

import json
import sys
from pathlib import Path

import pytest

from dyhead_det.data.coco.dataset import load_coco

SCRIPTS = Path(__file__).parents[3] / "scripts"


@pytest.fixture(autouse=True)
def _scripts_can_be_imported(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)


def run_script(monkeypatch, main, out, *arguments):
    """Run as from the command line; return the table, contestants by name."""
    monkeypatch.setattr(sys, "argv", ["bench", "--rounds", "1", "--out", str(out), *arguments])
    main()
    (report,) = out.glob("*.md")
    assert report.with_suffix(".png").is_file()
    rows = [line.split("|")[1:-1] for line in report.read_text().splitlines() if "|" in line]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}


def test_medians_are_of_each_clock_and_contestants_take_turns():
    from measuring import Cost, median_cost, median_costs

    assert median_cost([Cost(1, 9), Cost(5, 2), Cost(3, 4)]) == Cost(3, 4)
    turns = []
    runs = {"one": lambda: turns.append(1), "two": lambda: turns.append(2)}
    assert list(median_costs(runs, 3)) == ["one", "two"]
    assert turns == [1, 2, 1, 2, 1, 2]


def test_a_table_is_markdown():
    from measuring import markdown

    assert markdown(["", "s"], [["a", "1"]]) == ["|  | s |", "| --- | ---: |", "| a | 1 |"]


def test_drawn_and_enlarged_photographs_are_data_sets(tmp_path):
    from made_data import draw_photographs, enlarge_photographs

    draw_photographs(tmp_path / "drawn", width=80, height=40, count=3)
    enlarge_photographs(tmp_path / "drawn", tmp_path / "large", long_edge=200, count=2)
    drawn, large = (
        load_coco(tmp_path / name / "train.json", tmp_path / name / "images", split="train")
        for name in ("drawn", "large")
    )
    assert (len(drawn), len(large)) == (3, 2)
    assert large.size_wh(0) == (200, 100)
    assert large.boxes[:10] == pytest.approx(2.5 * drawn.boxes[:10], abs=1e-3)
    assert len(drawn.boxes) == 15


def test_annotations_are_as_many_as_asked_for(tmp_path):
    from made_data import write_annotations

    write_annotations(tmp_path / "large.json", 73)
    document = json.loads((tmp_path / "large.json").read_text())
    assert (len(document["annotations"]), len(document["images"])) == (73, 10)
    assert len(load_coco(tmp_path / "large.json", tmp_path, split="train").boxes) == 73


def test_evaluators_are_compared_on_drawn_and_on_given_ground_truth(
    monkeypatch, tmp_path, tiny_dataset
):
    from bench_eval import main

    given = str(tiny_dataset / "train.json")
    table = run_script(monkeypatch, main, tmp_path / "out", "--images", "3", "--data", given)
    numbers = {name.rpartition(" ")[0]: cells for name, cells in table.items()}
    for truth in ("synthetic, 3 images", "tiny, 4 images"):
        reference, fast = (
            numbers[f"{truth}: {backend}"] for backend in ("pycocotools", "faster-coco-eval")
        )
        assert float(reference[4]) > 0
        assert reference[4] == fast[4]
        assert float(fast[5]) < 1e-12


@pytest.mark.slow
def test_loaders_and_readers_are_compared_on_a_given_data_set(monkeypatch, tmp_path):
    from bench_loader import main
    from made_data import draw_photographs

    draw_photographs(tmp_path / "mine", width=80, height=40, count=6)
    arguments = ["--quick", "--images", "6", "--boxes", "20", "--data", str(tmp_path / "mine")]
    table = run_script(monkeypatch, main, tmp_path / "out", *arguments)
    assert table["mine: torchvision's reference"][2:] == ["1.00", "1.00"]
    assert "mine: dyhead-det" in table
    assert "mine, enlarged to 6 megapixels: dyhead-det, `reduce_jpegs: false`" in table
    assert table["json.load"][1] == "1.00 (1.00)"
    assert "dyhead-det" in table


@pytest.mark.slow
def test_operators_and_blocks_are_compared(monkeypatch, tmp_path):
    import bench_dyhead

    kinds = ("operator", "six blocks", "RoIAlign")
    cases = [bench_dyhead.Case(kind, 16, (16, 16), batch=1) for kind in kinds]
    monkeypatch.setattr(bench_dyhead, "table_cases", lambda quick: cases)
    monkeypatch.setattr(bench_dyhead, "drawn_sizes", lambda quick: ((4, 8), (1, 2)))
    table = run_script(monkeypatch, bench_dyhead.main, tmp_path, "--threads", "1")
    assert table["torchvision"][1] == "1.0"
    assert "gather" in table
    assert "plain 3x3 convolution" in table
    assert "bare matrix products" in table


@pytest.mark.slow
def test_detectors_are_compared_and_shares_add_up(monkeypatch, tmp_path):
    import bench_detector

    case = bench_detector.Case(
        "tiny", "fasterrcnn_r50_dyhead.yaml", (64, 128), bench_detector.SMALL, False
    )
    monkeypatch.setattr(bench_detector, "QUICK_CASES", [case])
    table = run_script(
        monkeypatch, bench_detector.main, tmp_path, "--quick", "--threads", "1", "--only", "tiny"
    )
    assert table[bench_detector.BASELINE][1] == "1.0"
    assert bench_detector.WITH_DYHEAD in table
    # The last table: of a step, and of how many percent each part is.
    assert sum(int(cell.split()[0]) for cell in table[""]) == pytest.approx(100, abs=4)
