"""A run that branches off another: its weights and optimizer, other settings, its own folder."""

import pytest
import torch

from dyhead_det import train
from dyhead_det.checkpoints.checkpoint import load_checkpoint
from dyhead_det.errors import CheckpointError, ConfigError
from dyhead_det.reporting.metrics_file import read_rows

from conftest import draw_tiny_dataset, make_config

CONSTANT = {"name": "multi_step", "milestones": [], "warmup_steps": 0}


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return draw_tiny_dataset(tmp_path_factory.mktemp("branching") / "tiny")


def config_of(data, *, steps, **sections):
    train_section = {"steps": steps, "log_every_steps": 1, **sections.pop("train", {})}
    return make_config(
        data,
        **{"data": {"val": None}, "schedule": CONSTANT, "train": train_section, **sections},
    )


@pytest.fixture(scope="module")
def origin(data, tmp_path_factory):
    """A finished run of two steps."""
    out = tmp_path_factory.mktemp("origin") / "run"
    train(config_of(data, steps=2), out, device="cpu")
    return out / "last.pt"


def weights(path):
    return load_checkpoint(path).model


def test_a_branch_without_changes_ends_as_a_run_of_its_length(data, origin, tmp_path, caplog):
    before = origin.read_bytes()
    train(config_of(data, steps=3), tmp_path / "straight", device="cpu")
    caplog.set_level("INFO")
    result = train(config_of(data, steps=3), tmp_path / "branch", device="cpu", branch=origin)
    assert (result.num_steps, result.was_finished) == (3, False)
    straight, branch = (weights(tmp_path / name / "last.pt") for name in ("straight", "branch"))
    assert all(torch.equal(straight[name], branch[name]) for name in straight)
    assert origin.read_bytes() == before
    assert f"a branch of {origin}: goes on after step 2 of 3" in caplog.text
    assert "changed: train.steps" in caplog.text
    assert [row["step"] for row in read_rows(tmp_path / "branch" / "metrics.jsonl")] == [3]


def test_settings_may_change_and_a_branch_is_resumed_as_any_run(data, origin, tmp_path, caplog):
    caplog.set_level("INFO")
    changed = {"optim": {"lr": 5e-4}, "train": {"ema": {"decay": 0.5}, "batch_size": 3}}
    train(config_of(data, steps=3, **changed), tmp_path / "run", device="cpu", branch=origin)
    assert "optim.lr, train.steps, train.batch_size, train.ema" in caplog.text
    assert read_rows(tmp_path / "run" / "metrics.jsonl")[-1]["lr"] == pytest.approx(5e-4)
    config = config_of(data, steps=4, **changed)
    result = train(config, tmp_path / "run", device="cpu", branch=origin, resume=True)
    assert result.num_steps == 4
    assert "going on after step 3 of 4" in caplog.text


@pytest.mark.parametrize(
    ("steps", "sections", "message"),
    [
        (3, {"model": {"channels": 32}}, r"model and the optimizer.*changed: model\.channels"),
        (3, {"optim": {"name": "sgd", "lr": 0.1}}, r"changed: optim\.name"),
        (2, {}, "2 steps in all, and .* has done 2 already; give more"),
    ],
)
def test_what_does_not_fit_is_one_line(steps, sections, message, data, origin, tmp_path):
    config = config_of(data, steps=steps, **sections)
    with pytest.raises(ConfigError, match=message):
        train(config, tmp_path / "run", device="cpu", branch=origin)
    assert not (tmp_path / "run").exists()


def test_other_classes_and_checkpoints_without_a_state_are_refused(data, origin, tmp_path):
    other = draw_tiny_dataset(tmp_path / "other")
    annotations = other / "train.json"
    annotations.write_text(annotations.read_text().replace('"square"', '"rectangle"'))
    with pytest.raises(CheckpointError, match="its classes are square, circle"):
        train(config_of(other, steps=3), tmp_path / "run", device="cpu", branch=origin)
    short, longer = (make_config(data, schedule=CONSTANT, train={"steps": n}) for n in (1, 3))
    train(short, tmp_path / "with_best", device="cpu")
    best = tmp_path / "with_best" / "best.pt"
    with pytest.raises(CheckpointError, match="no state of a run"):
        train(longer, tmp_path / "run", device="cpu", branch=best)
