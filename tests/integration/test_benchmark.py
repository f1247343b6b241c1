"""`dyhead-det benchmark` on a checkpoint and a file made from it."""

import json

import pytest
from typer.testing import CliRunner

from dyhead_det.checkpoints.checkpoint import Checkpoint, save_checkpoint
from dyhead_det.cli.app import app
from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.errors import CheckpointError, ExportError
from dyhead_det.export.export import export
from dyhead_det.export.options import ExportOptions
from dyhead_det.models.detectors import build_detector

from conftest import make_config

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture
def checkpoint(tmp_path):
    config = make_config(tmp_path)
    detector = build_detector(config.model, num_classes=1, load_backbone_weights=False)
    categories = CategoryMap((Category("square", 7),))
    path = tmp_path / "best.pt"
    save_checkpoint(path, Checkpoint(config, categories, detector.state_dict(), 0, {}))
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["benchmark", *map(str, arguments)])


@pytest.mark.slow
def test_every_contestant_runs_in_every_round(checkpoint, tmp_path):
    export(checkpoint, tmp_path / "model.onnx", ExportOptions(batch="dynamic"))
    out = tmp_path / "out"
    options = ["--size", "40x64", "--batch-size", 2, "--threads", 1, "--rounds", 2, "--runs", 1]
    result = run(checkpoint, tmp_path / "model.onnx", *options, "--device", "cpu", "--out", out)
    assert result.exit_code == 0, result.exception
    of_checkpoint, of_file = json.loads((out / "benchmark.json").read_text())["results"]
    assert [len(each["seconds"]) for each in (of_checkpoint, of_file)] == [2, 2]
    # A process that runs an ONNX file has no PyTorch in it.
    assert of_file["peak MiB"] < 0.6 * of_checkpoint["peak MiB"]
    assert f"written: {out}/benchmark.csv" in result.stdout


def test_what_cannot_run_is_an_error_of_its_own(checkpoint, tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    out = ["--out", tmp_path / "out", "--size", "40x64", "--threads", 1, "--device", "cpu"]
    assert isinstance(run(tmp_path / "broken.onnx", *out).exception, CheckpointError)
    result = run(checkpoint, tmp_path / "broken.onnx", *out)
    assert isinstance(result.exception, ExportError)
    assert list(tmp_path.glob("out/*")) == []
