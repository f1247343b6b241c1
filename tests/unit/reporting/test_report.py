"""The page of a run says what it is given, and needs nothing else."""

from dataclasses import replace

import pytest
from PIL import Image

from dyhead_det.data.statistics import DataStatistics
from dyhead_det.reporting.report import RunFacts, Timing, write_run_report

from html_pages import read_page

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


@pytest.fixture
def page_of(tmp_path):
    """Return what writes a report and reads it again."""
    for name in FACTS.pictures:
        Image.new("RGB", (20, 10), "red").save(tmp_path / name)

    def write(facts):
        write_run_report(tmp_path / "report.html", facts)
        return read_page(tmp_path / "report.html")

    return write


def test_best_and_last_evaluation_stand_side_by_side(page_of):
    rows = page_of(FACTS).rows
    assert rows["best, step 20"][:4] == ["0.500", "0.750", "-", "-"]
    assert rows["last, step 40"][:2] == ["0.300", "0.500"]
    assert rows["class"] == [
        "to train on",
        "to evaluate on",
        "AP best, step 20",
        "AP last, step 40",
    ]
    assert rows["cat"] == ["15", "15", "0.400", "0.100"]
    assert rows["a|b"] == ["5", "5", "0.600", "-"]


def test_the_last_evaluation_is_not_told_twice_where_it_is_the_best(page_of):
    assert "last, step" not in page_of(replace(FACTS, best_step=40)).text


def test_a_run_without_evaluation_says_so(page_of):
    data = {"train": STATISTICS}
    page = page_of(replace(FACTS, rows=FACTS.rows[:1], best_step=None, data=data))
    assert "Nothing has been evaluated." in page.text
    assert page.rows["images"] == ["10"]


def test_data_time_environment_and_configuration_are_told(page_of):
    page = page_of(FACTS)
    rows = page.rows
    assert rows["images"] == ["10", "5"]
    assert rows["images without an object"] == ["3", "3"]
    assert rows["medium objects"] == ["10 (50%)", "10 (50%)"]
    assert rows["crowd regions"] == ["1", "1"]
    assert rows["image size, greatest"] == ["500 x 600", "500 x 600"]
    assert rows["training steps"] == ["01:00", "60.0", "48.0%"]
    assert rows["torch"] == ["2.9.0"]
    assert "Speed: 1.60 images/s while training. Most memory: 1.50 GiB." in page.text
    assert "Waiting for data takes 40% of the training time: raise it." in page.text
    assert "seed: 0" in page.text
    assert "Finished after 40 steps." in page.text


def test_what_limits_the_numbers_stands_beside_them(page_of):
    page = page_of(replace(FACTS, notes=("2 of 4 images could not be read",)))
    assert "2 of 4 images could not be read." in page.text
    resumed = replace(FACTS, rows=[*FACTS.rows, {**FACTS.rows[-1], "num_unreadable_images": 2}])
    assert "2 images could not be read and are not scored." in page_of(resumed).text
    assert "could not be read" not in page_of(FACTS).text


def test_recall_of_more_detections_than_cocos_has_its_column(page_of):
    rows = [{"step": 20, "epoch": 1, "AP": 0.5, "AR1": 0.1, "AR10": 0.2, "AR300": 0.625}]
    page = page_of(replace(FACTS, rows=rows))
    assert page.rows[""][6:10] == ["AR1", "AR10", "AR300", "ARs"]
    assert page.rows["best, step 20"][6:9] == ["0.100", "0.200", "0.625"]


def test_names_from_outside_are_shown_and_not_obeyed(page_of):
    hostile = "</td><script>alert(1)</script>"
    statistics = replace(STATISTICS, objects_of_class={hostile: 15, "a|b": 5})
    page = page_of(
        replace(
            FACTS,
            name=hostile,
            state=f"Ended: {hostile}\x1b[31m",
            data={"train": statistics, "val": statistics},
            config=f"root: |\n  </pre>{hostile}\n",
        )
    )
    assert page.needs_nothing
    assert page.rows[hostile][:2] == ["15", "15"]
    assert f"Ended: {hostile}\\x1b[31m" in page.text
    assert f"root: |\n  </pre>{hostile}" in page.text


@pytest.mark.parametrize("name", ["Curves", "The first batch of training, as the detector got it"])
def test_only_pictures_that_are_there_are_shown(page_of, name):
    assert (name in page_of(FACTS).pictures) == (name == "Curves")
