"""The command `explain`: a picture and an npz, or one line that says why not."""

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from dyhead_det.checkpoints.checkpoint import Checkpoint, save_checkpoint
from dyhead_det.cli.app import app
from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.errors import CheckpointError, ConfigError
from dyhead_det.models.detectors import build_detector

from conftest import SMALL_DETECTORS, make_config


def write_checkpoint(path, dyhead):
    config = make_config(model={"detector": SMALL_DETECTORS["fcos"], "dyhead": dyhead})
    torch.manual_seed(0)
    detector = build_detector(config.model, num_classes=1, load_backbone_weights=False)
    categories = CategoryMap((Category("square", 7),))
    save_checkpoint(path, Checkpoint(config, categories, detector.state_dict(), 0, {}))
    return path


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "a [1].png"
    Image.new("RGB", (64, 48), "red").save(path)
    return path


def explain(*arguments):
    return CliRunner().invoke(app, ["explain", *map(str, arguments)])


def test_a_picture_and_arrays_are_written_beside_the_image_without_touching_it(image, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "best.pt", {"num_blocks": 1})
    before = image.read_bytes()
    result = explain(checkpoint, image, "--out", tmp_path, "--at", "10,20.5")
    assert result.exit_code == 0, result.output
    assert image.read_bytes() == before
    with Image.open(tmp_path / "a [1]_explained.png") as picture:
        assert picture.width > 1000
    with np.load(tmp_path / "a [1]_explained.npz", allow_pickle=False) as arrays:
        assert arrays["point"].tolist() == [10, 20.5]
        assert arrays["levels"].tolist() == ["p3", "p4", "p5", "p6", "p7"]


@pytest.mark.parametrize(
    "options", [["--at", "1"], ["--at", "a,b"], ["--box", "0"], ["--box", "1", "--class", "square"]]
)
def test_options_that_make_no_sense_are_usage_errors(options, image, tmp_path):
    checkpoint = tmp_path / "best.pt"
    checkpoint.touch()
    assert explain(checkpoint, image, *options).exit_code == 2


def test_a_checkpoint_without_dyhead_is_one_line_and_leaves_nothing(image, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "best.pt", None)
    result = explain(checkpoint, image, "--out", tmp_path / "out")
    assert isinstance(result.exception, CheckpointError)
    assert str(checkpoint) in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_the_folder_is_tried_before_the_work(image, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "best.pt", {"num_blocks": 1})
    result = explain(checkpoint, image, "--out", image)
    assert isinstance(result.exception, ConfigError)
    assert "--out" in str(result.exception)
