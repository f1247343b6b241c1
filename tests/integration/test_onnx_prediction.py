"""`predict`, `eval` and `load` take an exported file like the checkpoint that it was made of."""

import json
import logging
import shutil

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dyhead_det import load
from dyhead_det.checkpoints.checkpoint import Checkpoint, save_checkpoint
from dyhead_det.cli.app import app
from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.errors import CheckpointError, ConfigError, ExportError
from dyhead_det.export.export import export
from dyhead_det.export.options import ExportOptions
from dyhead_det.models.detectors import build_detector

from conftest import draw_tiny_dataset, make_config

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set, a checkpoint, and two files made of it."""
    folder = tmp_path_factory.mktemp("exported")
    draw_tiny_dataset(folder / "data")
    torch.manual_seed(0)
    config = make_config(folder / "data")
    detector = build_detector(config.model, num_classes=2, load_backbone_weights=False)
    categories = CategoryMap((Category("square", 7), Category("circle", 11)))
    bounds = {"square": 0.5, "circle": 0.4}
    checkpoint = Checkpoint(config, categories, detector.state_dict(), 5, {}, min_scores=bounds)
    save_checkpoint(folder / "best.pt", checkpoint)
    export(folder / "best.pt", folder / "model.onnx", ExportOptions(short_edge=48))
    options = ExportOptions(short_edge=48, batch=3, takes_uint8=True)
    export(folder / "best.pt", folder / "batch.onnx", options)
    return folder


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.mark.parametrize("name", ["model.onnx", "batch.onnx"])
def test_a_file_predicts_what_its_checkpoint_does(folder, name):
    of_file, of_checkpoint = load(folder / name), load(folder / "best.pt", short_edge=48)
    assert of_file.names == of_checkpoint.names
    assert of_file.min_scores == of_checkpoint.min_scores
    images = sorted((folder / "data" / "images").iterdir())
    found = of_file.predict(images, min_score=0, batch_size=2)
    expected = of_checkpoint.predict(images, min_score=0)
    for ours, theirs in zip(found, expected, strict=True):
        assert len(ours) == len(theirs) > 0
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-5)
        np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=1e-2)


@pytest.mark.slow
def test_predict_and_eval_write_the_same_with_either(folder, tmp_path):
    for name, more in (("best.pt", ["--short-edge", 48]), ("model.onnx", [])):
        out = tmp_path / name
        pictures = ["--save", "json", "--min-score", 0]
        images = folder / "data" / "images"
        for arguments in (
            ["predict", folder / name, images, "--out", out, *pictures, *more],
            ["eval", folder / name, "--out", out / "eval", *more],
        ):
            assert run(*arguments).exit_code == 0
    for file in ("detections.json", "eval/detections.json"):
        ours, theirs = (
            json.loads((tmp_path / name / file).read_text()) for name in ("model.onnx", "best.pt")
        )
        assert [each["image_id"] for each in ours] == [each["image_id"] for each in theirs]
        scores = [[each["score"] for each in one] for one in (ours, theirs)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def with_metadata(path, out, **texts):
    model = onnx.load(path)
    kept = {each.key: each.value for each in model.metadata_props}
    kept |= texts
    onnx.helper.set_model_props(model, {key: text for key, text in kept.items() if text})
    onnx.save(model, out)
    return out


def test_a_file_of_another_program_is_refused(folder, tmp_path):
    foreign = with_metadata(folder / "model.onnx", tmp_path / "a.onnx", checkpoint="")
    with pytest.raises(CheckpointError, match=r"a\.onnx: refused, .* did not write it"):
        load(foreign)
    damaged = with_metadata(folder / "model.onnx", tmp_path / "b.onnx", checkpoint="{")
    with pytest.raises(CheckpointError, match=r"b\.onnx: its metadata are damaged"):
        load(damaged)
    (tmp_path / "c.onnx").write_bytes(b"no graph")
    with pytest.raises(ExportError, match="cannot run the exported detector"):
        load(tmp_path / "c.onnx")
    with pytest.raises(CheckpointError, match=r"d\.onnx: cannot be read \(No such file"):
        load(tmp_path / "d.onnx")


def test_a_file_of_other_classes_than_it_says_is_an_error(folder, tmp_path):
    content = json.loads(load_metadata(folder / "model.onnx")["checkpoint"])
    content["categories"] = content["categories"][:1]
    content["min_scores"] = None
    path = with_metadata(folder / "model.onnx", tmp_path / "a.onnx", checkpoint=json.dumps(content))
    image = torch.rand(3, 64, 64)
    labels = load(folder / "model.onnx").predict(image, min_score=0).labels
    assert 1 in labels
    with pytest.raises(CheckpointError, match="classes whose names it does not have"):
        load(path).predict(image, min_score=0)


def load_metadata(path):
    return {each.key: each.value for each in onnx.load(path).metadata_props}


def test_a_file_beside_a_newer_checkpoint_is_stale(folder, tmp_path, caplog):
    for name in ("best.pt", "model.onnx"):
        shutil.copy(folder / name, tmp_path / name)
    with caplog.at_level(logging.WARNING):
        load(tmp_path / "model.onnx")
        assert caplog.text == ""
        (tmp_path / "best.pt").write_bytes(b"trained on")
        load(tmp_path / "model.onnx")
    assert "made of another best.pt than the one beside it: export it again" in caplog.text


def test_its_size_is_that_of_the_export(folder):
    with pytest.raises(ConfigError, match="resizes images as it was exported"):
        load(folder / "model.onnx", short_edge=32)
    assert load(folder / "model.onnx").resized_to == (48, 48)


def test_files_are_told_apart_by_their_weights(folder):
    one, again = load(folder / "model.onnx"), load(folder / "model.onnx")
    other = load(folder / "batch.onnx")
    assert one.fingerprint() == again.fingerprint() != other.fingerprint()
