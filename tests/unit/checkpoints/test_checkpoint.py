"""Checkpoints: whole or not at all, safe to read, and clear about what is wrong."""

import pytest
import torch

from dyhead_det.checkpoints import checkpoint as checkpoint_module
from dyhead_det.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.errors import CheckpointError
from dyhead_det.prediction.load import load

from conftest import make_config


def make_checkpoint(**changes):
    return Checkpoint(
        **{
            "config": make_config(),
            "categories": CategoryMap((Category("cat", 17), Category("dog", 3))),
            "model": {"weight": torch.rand(3)},
            "step": 12,
            "metrics": {"AP": 0.5, "APs": None},
            "training": {"best": {}},
            **changes,
        }
    )


def test_what_is_saved_is_loaded(tmp_path):
    saved = make_checkpoint()
    save_checkpoint(tmp_path / "a.pt", saved)
    loaded = load_checkpoint(tmp_path / "a.pt")
    assert torch.equal(loaded.model["weight"], saved.model["weight"])
    assert loaded.categories == saved.categories
    assert loaded.config == saved.config
    assert (loaded.step, loaded.metrics, loaded.training) == (
        12,
        {"AP": 0.5, "APs": None},
        {"best": {}},
    )


def test_a_checkpoint_is_called_by_its_file_in_what_is_wrong_with_its_model(tmp_path):
    save_checkpoint(tmp_path / "a.pt", make_checkpoint())
    with pytest.raises(CheckpointError, match=r"/a\.pt: configuration and weights differ"):
        load(tmp_path / "a.pt", device="cpu")


def test_bounds_of_the_score_are_kept_and_files_without_them_are_read(tmp_path):
    for bounds in (None, {"cat": 0.25, "dog": 0.5}):
        save_checkpoint(tmp_path / "a.pt", make_checkpoint(min_scores=bounds))
        assert load_checkpoint(tmp_path / "a.pt").min_scores == bounds
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    del content["min_scores"]
    assert checkpoint_module.parse_checkpoint(content, source="old.pt").min_scores is None


@pytest.mark.parametrize(
    "bounds",
    [{"cat": 0.5}, {"cat": 0.5, "dog": 1.5}, {"cat": 0.5, "dog": "high"}, [0.5, 0.5], {1: 0.5}],
)
def test_bounds_that_are_none_are_refused(tmp_path, bounds):
    save_checkpoint(tmp_path / "a.pt", make_checkpoint(min_scores=bounds))
    with pytest.raises(CheckpointError, match=r"a\.pt: min_scores: "):
        load_checkpoint(tmp_path / "a.pt")


def test_a_score_that_is_no_score_is_refused(tmp_path):
    save_checkpoint(tmp_path / "a.pt", make_checkpoint(metrics={"AP": 10**400}))
    with pytest.raises(CheckpointError, match=r"a\.pt: metrics\.AP: a number of 1329 bits"):
        load_checkpoint(tmp_path / "a.pt")


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    save_checkpoint(path, make_checkpoint(step=1))

    def fail_half_way(_content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_module.torch, "save", fail_half_way)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, make_checkpoint(step=2))
    assert load_checkpoint(path).step == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.pt"]


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pt: cannot read: No such file"):
        load_checkpoint(tmp_path / "none.pt")


def test_a_foreign_file_is_refused_with_what_it_looks_like(tmp_path):
    torch.save({"state_dict": {}, "meta": {}}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"looks like .* tensors by name: state_dict, meta"):
        load_checkpoint(tmp_path / "a.pt")
    torch.save({"backbone.dyhead_tower.0.offset.bias": torch.ones(27)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"detectron2's format: import it first"):
        load_checkpoint(tmp_path / "a.pt")


def test_a_file_of_a_newer_version_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "VERSION", 99)
        save_checkpoint(tmp_path / "a.pt", make_checkpoint())
    with pytest.raises(CheckpointError, match="newer dyhead-det"):
        load_checkpoint(tmp_path / "a.pt")


def test_an_incomplete_file_is_refused(tmp_path):
    torch.save({"format": "dyhead-det", "version": 1, "config": {}}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="incomplete"):
        load_checkpoint(tmp_path / "a.pt")
