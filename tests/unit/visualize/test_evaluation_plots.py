"""Plots of an evaluation: their numbers, and names as they are."""

import numpy as np
import pytest

from dyhead_det.visualize import evaluation_plots as plots


@pytest.mark.parametrize("name", ["$x$", "_hidden", "a\nb", "<b>&amp;</b> -->", "x" * 500, "日本"])
def test_names_are_shown_as_they_are(name, tmp_path):
    figure = plots.plot_bars({name: 0.5, "none": None}, axis="AP")
    svg = plots.to_svg(figure)
    assert svg.startswith("<svg")
    assert "<b>" not in svg
    assert "<!--" not in svg
    plots.save_png(figure, tmp_path / "a.png")
    (texts,) = (axes.get_yticklabels() for axes in figure.axes)
    assert len(texts[0].get_text()) <= 24


def test_black_takes_the_color_of_the_page():
    assert "#000000" not in plots.to_svg(plots.plot_bars({"a": 1.0}, axis="AP"))


def test_many_classes_have_a_mean_and_no_names():
    recalls = np.linspace(0, 1, 101)
    curves = {f"class {number}": 1 - recalls for number in range(20)}
    figure = plots.plot_precision_recall(recalls, {0.5: curves})
    (legend,) = (axes.get_legend() for axes in figure.axes)
    assert [text.get_text() for text in legend.get_texts()] == ["mean"]


def test_confusions_of_many_classes_are_those_with_most_objects():
    matrix = np.diag(np.arange(51))
    figure = plots.plot_confusion(matrix, [f"c{k}" for k in range(50)], iou=0.5, min_score=0.3)
    (axes,) = figure.axes
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == [*(f"c{k}" for k in range(20, 50)), "background"]
    assert "20 classes with fewer objects left out" in axes.get_title(loc="left")


def test_a_calibration_without_detections_can_be_drawn():
    nan = np.full(10, np.nan)
    figure = plots.plot_calibration(np.zeros(10, dtype=np.int64), nan, nan, None)
    assert figure.axes[0].get_title(loc="right") == "no detections"
    plots.to_svg(figure)
