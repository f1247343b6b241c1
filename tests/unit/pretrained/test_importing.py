"""`weights list`, `weights download` and `weights import` as commands."""

import torch
from typer.testing import CliRunner

from dyhead_det.cli.weights import app
from dyhead_det.errors import CheckpointError, ConfigError
from dyhead_det.pretrained.catalogue import PUBLISHED_MODELS


def test_list_shows_names_and_scores():
    result = CliRunner().invoke(app, ["list"])
    assert result.exit_code == 0
    for model in PUBLISHED_MODELS:
        assert model.name in result.output
        assert str(model.box_ap) in result.output


def test_download_of_an_unknown_name_is_a_usage_error():
    result = CliRunner().invoke(app, ["download", "dyhead_r50"])
    assert isinstance(result.exception, ConfigError)


def test_import_says_what_a_wrong_file_is(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "x.pth")
    arguments = ["import", str(tmp_path / "x.pth"), str(tmp_path / "y.pt"), "--format", "mmdet"]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, CheckpointError)
    assert "looks like something else: 1 tensors, a" in str(result.exception)
    result = CliRunner().invoke(app, [*arguments[:-1], "caffe"])
    assert result.exit_code == 2
