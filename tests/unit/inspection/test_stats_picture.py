"""The picture of statistics is drawn for few objects and odd names too."""

import pytest
from PIL import Image

from dyhead_det.data.coco.dataset import load_coco
from dyhead_det.inspection.stats import compute_stats
from dyhead_det.inspection.stats_picture import draw_stats

from conftest import SMALL_DETECTORS, draw_tiny_dataset, make_config


@pytest.mark.parametrize("name", ["fasterrcnn", "fcos"])
def test_a_picture_is_drawn_with_and_without_anchors(tmp_path, name):
    folder = draw_tiny_dataset(tmp_path / "tiny", num_images=1)
    text = (folder / "train.json").read_text()
    (folder / "train.json").write_text(text.replace("circle", r"a $\\frac$ of \u202e"))
    dataset = load_coco(folder / "train.json", folder / "images", split="train")
    model = make_config(model={"detector": SMALL_DETECTORS[name]}).model
    draw_stats(compute_stats(dataset, model, config_name="tiny"), tmp_path / "stats.png")
    with Image.open(tmp_path / "stats.png") as picture:
        assert picture.size == (1650, 990)
        assert len(picture.convert("RGB").getcolors(2**20)) > 20
