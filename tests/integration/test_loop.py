"""What a run can do besides plain steps: averages, parts, freezing, stopping early."""

import signal

import pytest
import torch

from dyhead_det.checkpoints.checkpoint import load_checkpoint
from dyhead_det.errors import StoppedError
from dyhead_det.evaluation.coco_scores import EvalResult
from dyhead_det.reporting.metrics_file import read_rows
from dyhead_det.training import step as step_module
from dyhead_det.training import validation as validation_module
from dyhead_det.training.train import train

from conftest import draw_tiny_dataset, make_config

CPU = torch.device("cpu")
EVERYTHING = {
    "data": {"group_by_aspect_ratio": True, "sampling": {"name": "class_balanced"}},
    "model": {
        "detector": {"name": "atss"},
        "input": {"multi_scale": [64, 96], "long_edge": 128},
        "backbone": {"norm": "normal"},
    },
    "optim": {"clip_norm": 1.0, "auto_scale_lr": {"base_batch_size": 6}},
    "train": {
        "steps": 6,
        "batch_size": 3,
        "accumulate": 2,
        "log_every_steps": 1,
        "ema": {"decay": 0.9, "evaluate_raw": True},
        "early_stopping": {"patience": 9},
        "freeze": {"backbone_steps": 4},
    },
}


def run(config, out, *, resume=False):
    return train(config, out, device=CPU, resume=resume)


def tensors(value, path=""):
    """Return all tensors in nested dictionaries and lists by their paths."""
    if isinstance(value, torch.Tensor):
        return {path: value}
    if isinstance(value, dict):
        items = value.items()
    else:
        items = enumerate(value) if isinstance(value, list) else ()
    return {k: x for name, part in items for k, x in tensors(part, f"{path}/{name}").items()}


def content(path):
    checkpoint = load_checkpoint(path)
    return tensors({"model": checkpoint.model, "training": checkpoint.training or {}})


def comparable_rows(out):
    varying = ("images_per_second", "memory_gib", "data_share")
    rows = read_rows(out / "metrics.jsonl")
    return [{name: x for name, x in row.items() if name not in varying} for row in rows]


def test_with_everything_on_a_stopped_and_resumed_run_ends_with_the_same_bytes(
    tmp_path, monkeypatch
):
    config = make_config(draw_tiny_dataset(tmp_path / "data", num_images=5), **EVERYTHING)
    run(config, tmp_path / "straight")
    assert (tmp_path / "straight" / "first_batch.png").is_file()
    real, count = step_module._forward, iter(range(1, 10**6))

    def forward(*arguments, **keywords):
        if next(count) == 5:  # in the first part of the third step, two parts a step
            signal.raise_signal(signal.SIGTERM)
        return real(*arguments, **keywords)

    monkeypatch.setattr(step_module, "_forward", forward)
    with pytest.raises(StoppedError, match="after step 3 of 6"):
        run(config, tmp_path / "stopped")
    monkeypatch.undo()
    run(config, tmp_path / "stopped", resume=True)
    for name in ("last.pt", "best.pt"):
        straight, stopped = (content(tmp_path / out / name) for out in ("straight", "stopped"))
        assert straight.keys() == stopped.keys()
        assert [key for key in straight if not torch.equal(straight[key], stopped[key])] == []
    assert comparable_rows(tmp_path / "straight") == comparable_rows(tmp_path / "stopped")


def test_the_average_is_kept_and_evaluated_and_the_weights_go_on_in_last_pt(tiny_dataset, tmp_path):
    train_section = {"steps": 2, "ema": {"decay": 0.5, "evaluate_raw": True}}
    run(make_config(tiny_dataset, train=train_section), tmp_path / "run")
    last = load_checkpoint(tmp_path / "run" / "last.pt")
    best = load_checkpoint(tmp_path / "run" / "best.pt")
    trained = last.training["ema"]["trained_model"]
    bias = "network.rpn.head.bbox_pred.bias"
    assert torch.equal(best.model[bias], last.model[bias])
    assert not torch.equal(last.model[bias], trained[bias])
    (row,) = [row for row in read_rows(tmp_path / "run" / "metrics.jsonl") if "AP" in row]
    assert "raw/AP" in row


@pytest.fixture
def scripted_scores(monkeypatch):
    """Let evaluations find what is given instead of what there is."""

    def arrange(*scores):
        left = iter(scores)

        def evaluate(*_arguments, **_keywords):
            metrics = {"AP": next(left), "AP50": 0.5}
            return EvalResult(metrics, (), 4, 4, 0, "none"), []

        monkeypatch.setattr(validation_module, "evaluate_detector", evaluate)

    return arrange


def test_a_run_without_progress_stops_early_and_is_finished(
    tiny_dataset, tmp_path, scripted_scores
):
    train_section = {"steps": 20, "early_stopping": {"patience": 2, "min_delta": 0.01}}
    config = make_config(tiny_dataset, train=train_section)
    scripted_scores(0.1, 0.2, 0.205, 0.209)
    result = run(config, tmp_path / "run")
    assert (result.num_steps, result.was_finished) == (8, False)  # two steps an epoch
    assert result.best["AP"] == 0.209  # best.pt holds it though it was no progress
    again = run(config, tmp_path / "run", resume=True)
    assert (again.num_steps, again.was_finished) == (8, True)


def test_epochs_of_one_batch_leave_the_warm_up(tiny_dataset, tmp_path):
    config = make_config(
        tiny_dataset,
        data={"val": None},
        optim={"lr": 0.01},
        schedule={"name": "multi_step", "milestones": [], "warmup_steps": 4, "warmup_factor": 0.0},
        train={"steps": None, "epochs": 6, "batch_size": 8, "log_every_steps": 1},
    )
    run(config, tmp_path / "run")
    rates = [row["lr"] for row in read_rows(tmp_path / "run" / "metrics.jsonl")]
    assert rates == pytest.approx([0, 0.0025, 0.005, 0.0075, 0.01, 0.01])


def test_a_resumed_run_may_take_batches_in_other_parts(tiny_dataset, tmp_path, caplog):
    caplog.set_level("INFO")
    run(make_config(tiny_dataset, train={"steps": 2}), tmp_path / "run")
    config = make_config(tiny_dataset, train={"steps": 2, "accumulate": 2})
    assert run(config, tmp_path / "run", resume=True).was_finished
    assert "train.accumulate: batches come in 2 micro-batches instead of 1" in caplog.text
