"""The report says what it is given, in tables that Markdown understands."""

import re
from dataclasses import replace

import pytest

from dyhead_det.data.statistics import DataStatistics
from dyhead_det.reporting.report import RunFacts, Timing, report_text

STATISTICS = DataStatistics(
    num_images=10,
    num_empty=3,
    num_objects=20,
    num_crowds=1,
    objects_of_class={"cat": 15, "a|b": 5},
    small=5,
    medium=10,
    large=5,
    most_objects=7,
    image_sizes=((10, 20), (30, 40), (500, 600)),
)
FACTS = RunFacts(
    name="exp",
    state="Finished after 40 steps.",
    rows=[
        {"step": 20, "epoch": 1, "loss": 2.5},
        {
            "step": 20,
            "epoch": 1,
            "AP": 0.5,
            "AP50": 0.75,
            "APs": None,
            "AP/cat": 0.4,
            "AP/a|b": 0.6,
        },
        {
            "step": 40,
            "epoch": 2,
            "AP": 0.3,
            "AP50": 0.5,
            "APs": None,
            "AP/cat": 0.1,
            "AP/a|b": None,
        },
    ],
    best_step=20,
    notes=(),
    data={"train": STATISTICS, "val": replace(STATISTICS, num_images=5)},
    timing=Timing(
        first_step=0,
        last_step=40,
        seconds={"training steps": 60.0, "loading data": 40.0, "evaluation": 25.0},
        num_images=160,
        memory_gib=1.5,
        advice="waiting for data takes 40% of the training time: raise it",
    ),
    environment={"torch": "2.9.0", "device": "cpu"},
    pictures=["curves.png", "validation.png"],
    config="seed: 0\n",
)


def rows_of(text):
    """Return the cells of all table rows by their first cell."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return {row[0]: row[1:] for row in cells}


def test_best_and_last_evaluation_stand_side_by_side():
    rows = rows_of(report_text(FACTS))
    assert rows["best, step 20"][:4] == ["0.500", "0.750", "-", "-"]
    assert rows["last, step 40"][:2] == ["0.300", "0.500"]
    assert rows["class"] == [
        "to train on",
        "to evaluate on",
        "AP best, step 20",
        "AP last, step 40",
    ]
    assert rows["cat"] == ["15", "15", "0.400", "0.100"]
    assert rows["a\\|b"] == ["5", "5", "0.600", "-"]


def test_the_last_evaluation_is_not_told_twice_where_it_is_the_best():
    assert "last, step" not in report_text(replace(FACTS, best_step=40))


def test_a_run_without_evaluation_says_so():
    data = {"train": STATISTICS}
    text = report_text(replace(FACTS, rows=FACTS.rows[:1], best_step=None, data=data))
    assert "Nothing has been evaluated." in text
    assert rows_of(text)["images"] == ["10"]


def test_data_time_environment_and_configuration_are_told():
    text = report_text(FACTS)
    rows = rows_of(text)
    assert rows["images"] == ["10", "5"]
    assert rows["images without an object"] == ["3", "3"]
    assert rows["medium objects"] == ["10 (50%)", "10 (50%)"]
    assert rows["crowd regions"] == ["1", "1"]
    assert rows["image size, greatest"] == ["500 x 600", "500 x 600"]
    assert rows["training steps"] == ["01:00", "60.0", "48.0%"]
    assert rows["torch"] == ["2.9.0"]
    assert "Speed: 1.60 images/s while training. Most memory: 1.50 GiB." in text
    assert "**Waiting for data takes 40% of the training time: raise it.**" in text
    assert "```yaml\nseed: 0\n```" in text
    assert text.startswith("# exp\n\nFinished after 40 steps.")


def test_what_limits_the_numbers_stands_below_them():
    text = report_text(replace(FACTS, notes=("2 of 4 images could not be read",)))
    assert "**Note:** 2 of 4 images could not be read.\n" in text
    resumed = replace(FACTS, rows=[*FACTS.rows, {**FACTS.rows[-1], "num_unreadable_images": 2}])
    assert "**Note:** 2 images could not be read and are not scored.\n" in report_text(resumed)
    assert "Note:" not in report_text(FACTS)


def test_recall_of_more_detections_than_cocos_has_its_column():
    rows = [{"step": 20, "epoch": 1, "AP": 0.5, "AR1": 0.1, "AR10": 0.2, "AR300": 0.625}]
    text = report_text(replace(FACTS, rows=rows))
    assert "| AR1 | AR10 | AR300 | ARs |" in text
    table = rows_of(text)
    assert table["best, step 20"][6:9] == ["0.100", "0.200", "0.625"]


def test_names_from_outside_are_shown_and_not_obeyed():
    hostile = "</td><script>\n# [x](http://y) `"
    statistics = replace(STATISTICS, objects_of_class={hostile: 15, "a|b": 5})
    facts = replace(
        FACTS,
        name="*exp*",
        state=f"Ended: {hostile}",
        data={"train": statistics, "val": statistics},
        config="root: |\n  ```\n  # not a heading\n",
    )
    text = report_text(facts)
    assert "<script>" not in text
    assert text.startswith("# \\*exp\\*\n")
    assert "[x](" not in text.replace("\\[x\\](", "")
    assert "````yaml\nroot: |\n  ```\n  # not a heading\n````" in text


@pytest.mark.parametrize("name", ["curves.png", "first_batch.png", "validation.png"])
def test_only_pictures_that_are_there_are_shown(name):
    assert (f"({name})" in report_text(FACTS)) == (name in FACTS.pictures)


def test_all_rows_of_a_table_are_equally_wide():
    widths = []
    for line in report_text(FACTS).splitlines():
        width = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else None
        if width and widths and widths[-1]:
            assert width == widths[-1], line
        widths.append(width)
