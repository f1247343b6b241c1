"""A run ends with AP by class at its best step."""

from pathlib import Path

from dyhead_det.reporting.summary import run_summary

ROWS = [
    {"step": 2, "loss": 1.0},
    {"step": 2, "AP": 0.5, "AP/cat": 0.5, "AP/dog": None},
    {"step": 4, "AP": 0.25, "AP/cat": 0.25, "AP/dog": None},
]
OBJECTS = {"cat": 12, "dog": 0}
REPORT = Path("runs") / "exp" / "report.html"


def test_classes_are_those_of_the_best_evaluation_with_a_dash_for_none():
    text = run_summary(ROWS, best_step=2, num_objects=OBJECTS, report=REPORT)
    assert text.splitlines() == [
        "class  boxes     AP",
        "cat       12  0.500",
        "dog        0      -",
        "",
        f"report: {REPORT}",
    ]


def test_a_run_without_evaluation_names_its_report():
    text = run_summary(ROWS[:1], best_step=None, num_objects={}, report=REPORT)
    assert text == f"report: {REPORT}"
