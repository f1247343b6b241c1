"""The curves of a run as a picture."""

import subprocess
import sys

import pytest
from PIL import Image

from dyhead_det.visualize.plots import _curves, _loss_names, plot_curves

LOSSES = [
    {"step": step, "epoch": 0, "lr": 0.01, "loss": 2 / step, "loss_box": 1 / step}
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
    rows = [{"step": 1, "AP": 0.1}, {"step": 2, "AP": None}, {"step": 3}, {"step": 4, "AP": 0.4}]
    assert _curves(rows, ["AP", "AP50"]) == {"AP": ([1, 4], [0.1, 0.4])}


def test_the_sum_of_the_losses_comes_first():
    assert _loss_names(LOSSES + SCORES) == ("loss", "loss_box")


def test_drawing_leaves_the_program_s_own_plots_alone(tmp_path):
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from dyhead_det.visualize.plots import plot_curves\n"
        "if 'matplotlib' in sys.modules: raise SystemExit('imported at once')\n"
        "plot_curves([{'step': 1, 'lr': 1.0}], Path(sys.argv[1]))\n"
        "if 'matplotlib.pyplot' in sys.modules: raise SystemExit('pyplot imported')\n"
    )
    path = tmp_path / "curves.png"
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)
    assert path.exists()
