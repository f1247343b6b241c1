"""The script that draws learning curves: pairs of runs, compared over images, seeds and time."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from dyhead_det.config.file import to_yaml

from conftest import make_config

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(autouse=True)
def _scripts_can_be_imported(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)


def made_up_curves():
    """`slow` is .02 better with seed 0 and .04 with seed 1, and takes twice the time per step."""
    from curve_table import Curves, Point
    from grid_runs import Measured

    noise = np.random.default_rng(0).normal(size=1000)
    measured, resampled = {}, {}
    for seed in (0, 1):
        for steps, ap in ((100, 0.3), (200, 0.4), (400, 0.5)):
            for head, gain, cpu in (("plain", 0.0, 1.0), ("slow", 0.02 + 0.02 * seed, 2.0)):
                point = Point("atss", head, steps, seed)
                scores = {"AP": ap + gain, "AP50": 0.6}
                measured[point] = Measured(scores, 1, 1.0, 9.0, cpu)
                resampled[point] = ap + gain + 0.1 * noise  # the same images for all
    return Curves(("plain", "slow"), measured, resampled)


def test_pairs_are_compared_at_equal_steps_and_what_they_share_cancels():
    found = made_up_curves().at_equal_steps("atss", "slow", 200)
    assert found.ap == {0: pytest.approx(0.02), 1: pytest.approx(0.04)}
    assert found.mean == pytest.approx(0.03)
    assert found.over_images == pytest.approx((0.03, 0.03))
    assert found.over_all == pytest.approx((0.02, 0.04))


def test_at_equal_time_the_slower_head_has_done_fewer_steps():
    curves = made_up_curves()
    # 400 steps of `plain` take as long as 200 of `slow`; 300 would lie half-way in log time.
    assert curves.at_equal_time("atss", "slow", 400).mean == pytest.approx(0.43 - 0.5)
    assert curves.at_equal_time("atss", "slow", 200).mean == pytest.approx(0.33 - 0.4)
    assert curves.at_equal_time("atss", "slow", 100) is None  # shorter than any run of `slow`


def test_seeds_that_one_head_lacks_are_left_out():
    from curve_table import Curves, Point, markdown

    curves = made_up_curves()
    missing = Point("atss", "slow", 200, 1)
    fewer = Curves(
        curves.heads,
        {point: found for point, found in curves.measured.items() if point != missing},
        curves.resampled,
    )
    assert fewer.at_equal_steps("atss", "slow", 200).ap == {0: pytest.approx(0.02)}
    (line,) = [line for line in markdown(fewer) if line.startswith("| atss | slow | 200 | +")]
    assert "| +0.020 | +0.020 | +0.020 .. +0.020 |" in line


@pytest.fixture
def script(tiny_dataset, tmp_path, monkeypatch):
    """The script as a function of its arguments, on runs of one and two steps."""
    import learning_curves

    base = tmp_path / "base.yaml"
    config = make_config(tiny_dataset, train={"log_every_steps": 1}, schedule={"warmup_steps": 0})
    base.write_text(to_yaml(config))

    def run(*arguments):
        where = ["--out", str(tmp_path / "out"), "--device", "cpu"]
        lengths = ["--steps", "1", "2", "--seeds", "5"]
        monkeypatch.setattr(sys, "argv", ["x", str(base), *where, *lengths, *arguments])
        return learning_curves.main()

    run.out = tmp_path / "out"
    return run


@pytest.mark.slow
def test_runs_are_paired_done_once_and_scored_on_images_that_were_held_out(
    script, monkeypatch, tiny_dataset
):
    import grid_runs

    assert script() == 0
    monkeypatch.setattr(grid_runs, "train", None)  # nothing is left to do
    assert script() == 0
    out = script.out / "choice"
    with (out / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["head"], row["steps"], row["seed"]) for row in rows] == [
        (head, steps, "5") for head in ("dyhead", "plain") for steps in ("1", "2")
    ]
    assert all(float(row["cpu_seconds_per_step"]) > 0 for row in rows)
    ids = {
        part: {image["id"] for image in json.loads((out / f"{part}.json").read_text())["images"]}
        for part in ("train", "val")
    }
    everything = json.loads((tiny_dataset / "train.json").read_text())
    assert ids["train"] | ids["val"] == {image["id"] for image in everything["images"]}
    assert not ids["train"] & ids["val"]
    table = (out / "curves.md").read_text()
    assert "trained on 3 images, scored on 1 held out" in table
    assert "| fasterrcnn | dyhead | 2 | " in table
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_report_trains_on_all_images_and_other_detectors_keep_the_anchors(tiny_dataset, script):
    import grid_runs

    seen = {}

    def remember(config, folder, _device):
        seen[folder.name] = config

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(grid_runs, "train_and_score", remember)
        assert script("--report", "--detectors", "atss", "retinanet") == 0
    assert len(seen) == 8
    plain = seen["atss-plain-2-seed5"]
    assert (plain.data.train.annotations, plain.data.val.annotations) == ("train.json",) * 2
    assert (plain.train.steps, plain.seed, plain.model.dyhead) == (2, 5, None)
    assert plain.model.detector.num_tower_convs == 4
    assert seen["atss-dyhead-2-seed5"].model.detector.num_tower_convs == 0
    assert seen["retinanet-dyhead-1-seed5"].model.detector.anchor_sizes[0] == (8, 10.08, 12.7)


def test_a_base_without_dyhead_is_compared_with_two_blocks(tiny_dataset):
    import learning_curves

    heads = learning_curves.default_heads(make_config(tiny_dataset, model={"dyhead": None}))
    plain, (name, blocks, offsets) = heads
    assert plain == ["plain", "model.dyhead=null"]
    assert (name, blocks) == ("dyhead", "model.dyhead={num_blocks: 2, residual_scale: 3}")
    assert offsets == "optim.offset_lr_factor=0.2"
    assert learning_curves.default_heads(make_config(tiny_dataset))[1] == ["dyhead"]
