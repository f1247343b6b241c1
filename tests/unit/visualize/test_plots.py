"""The curves of a run as a picture."""

import subprocess
import sys

import pytest
from PIL import Image

from dyhead_det.visualize import plots
from dyhead_det.visualize.plots import (
    _curves,
    _epoch_label,
    _loss_names,
    _trend,
    plot_curves,
)

LOSSES = [
    {"step": step, "epoch": step / 10, "lr": 0.01, "loss": 2 / step, "loss_box": 1 / step}
    for step in range(1, 30)
]
SCORES = [{"step": 10, "epoch": 1, "AP": 0.2, "AP50": 0.4, "AP75": 0.1, "APl": None}]


@pytest.mark.parametrize(
    ("rows", "num_panels"), [(LOSSES + SCORES, 3), (LOSSES, 2), (SCORES, 1), (LOSSES[:1], 2)]
)
def test_a_panel_is_drawn_for_each_kind_of_number(tmp_path, rows, num_panels):
    path = tmp_path / "curves.png"
    plot_curves(rows, path)
    with Image.open(path) as picture:
        assert picture.height == 300 * num_panels
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_drawn_of_nothing(tmp_path):
    plot_curves([{"step": 1, "AP": None}], tmp_path / "curves.png")
    assert list(tmp_path.iterdir()) == []


def test_missing_numbers_are_left_out_of_a_curve():
    rows = [
        {"epoch": 0.5, "AP": 0.1},
        {"epoch": 1, "AP": None},
        {"epoch": 1.5},
        {"epoch": 2, "AP": 0.4},
    ]
    assert _curves(rows, ["AP", "AP50"]) == {"AP": ([0.5, 2], [0.1, 0.4])}


def test_the_axis_says_how_many_steps_an_epoch_has():
    assert _epoch_label([{"step": 0, "epoch": 0}, *LOSSES]) == "epoch (of 10 steps)"
    assert _epoch_label([]) == "epoch"


def test_the_trend_of_a_line_is_the_line_and_a_peak_does_not_move_it():
    epochs = [i / 10 for i in range(600)]
    middles, values = _trend((epochs, [2 * epoch for epoch in epochs]))
    assert values == pytest.approx([2 * middle for middle in middles])
    assert (middles[0], middles[-1]) == pytest.approx((0.45, 59.45))
    _, flat = _trend((epochs, [500.0 if epoch == 30 else 1.0 for epoch in epochs]))
    assert flat == [1.0] * len(middles)


def height_of_loss_panel(monkeypatch, rows, tmp_path):
    heights = {}
    draw = plots._draw_panel

    def watched(axes, title, curves):
        draw(axes, title, curves)
        heights[title] = axes.get_ylim()[1]

    monkeypatch.setattr(plots, "_draw_panel", watched)
    plot_curves(rows, tmp_path / "curves.png")
    return heights["loss"]


def test_one_bad_step_does_not_flatten_all_others(monkeypatch, tmp_path):
    rows = [{"step": i, "epoch": i / 100, "loss": 1.0} for i in range(1, 400)]
    rows[200]["loss"] = 500.0
    height = height_of_loss_panel(monkeypatch, rows, tmp_path)
    assert height == pytest.approx(1.1)


def test_few_losses_are_shown_as_they_are(monkeypatch, tmp_path):
    assert height_of_loss_panel(monkeypatch, LOSSES, tmp_path) == pytest.approx(2.2)


def test_the_sum_of_the_losses_comes_first():
    assert _loss_names(LOSSES + SCORES) == ("loss", "loss_box")


def test_drawing_leaves_the_program_s_own_plots_alone(tmp_path):
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from dyhead_det.visualize.plots import plot_curves\n"
        "if 'matplotlib' in sys.modules: raise SystemExit('imported at once')\n"
        "plot_curves([{'epoch': 1, 'lr': 1.0}], Path(sys.argv[1]))\n"
        "if 'matplotlib.pyplot' in sys.modules: raise SystemExit('pyplot imported')\n"
    )
    path = tmp_path / "curves.png"
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)
    assert path.exists()
