"""Whole runs on a tiny data set: what is left behind, stopped and resumed runs, bad luck."""

import json
import signal

import pytest
import torch

from dyhead_det.checkpoints.checkpoint import load_checkpoint
from dyhead_det.config.file import load_config
from dyhead_det.errors import (
    CheckpointError,
    ConfigError,
    DatasetError,
    NonFiniteLossError,
    StoppedError,
)
from dyhead_det.prediction.evaluate_checkpoint import evaluate_checkpoint
from dyhead_det.reporting.metrics_file import read_rows
from dyhead_det.training import step as step_module
from dyhead_det.training import validation as validation_module
from dyhead_det.training.train import train

from conftest import SMALL_DETECTORS, make_config

CPU = torch.device("cpu")


def run(config, out, *, device=CPU, resume=False):
    return train(config, out, device=device, resume=resume)


def same_weights(path, other):
    one, two = load_checkpoint(path).model, load_checkpoint(other).model
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize(
    "detector", [{}, SMALL_DETECTORS["retinanet"]], ids=["fasterrcnn", "retinanet"]
)
def test_a_run_leaves_checkpoints_configuration_and_numbers(
    tiny_dataset, tmp_path, detector, device
):
    config = make_config(tiny_dataset, model={"detector": detector})
    result = run(config, tmp_path / "run", device=device)
    assert result.num_steps == 6
    assert result.checkpoint == tmp_path / "run" / "best.pt"
    assert load_config(tmp_path / "run" / "config.yaml") == config
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == [2, 4, 6]
    assert [row["step"] for row in rows if "AP" in row] == [2, 4, 6]
    checkpoint = load_checkpoint(tmp_path / "run" / "last.pt")
    assert checkpoint.step == 6
    assert checkpoint.categories.names == ("square", "circle")
    assert load_checkpoint(result.checkpoint).training is None


def test_the_loss_falls(tiny_dataset, tmp_path, device):
    train = {"steps": 40, "eval_every_epochs": 99}
    config = make_config(tiny_dataset, train=train, optim={"lr": 3e-3})
    run(config, tmp_path / "run", device=device)
    losses = [row["loss"] for row in read_rows(tmp_path / "run" / "metrics.jsonl") if "loss" in row]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_trains(tiny_dataset, tmp_path, amp, device):
    config = make_config(tiny_dataset, train={"amp": amp})
    result = run(config, tmp_path / "run", device=device)
    assert result.num_steps == 6
    model = load_checkpoint(tmp_path / "run" / "last.pt").model
    assert all(torch.isfinite(x).all() for x in model.values() if x.is_floating_point())


def test_sgd_with_clipping_and_groups_trains(tiny_dataset, tmp_path):
    optim = {
        "name": "sgd",
        "lr": 0.01,
        "clip_norm": 1.0,
        "decay_norms_and_biases": False,
        "backbone_lr_factor": 0.1,
    }
    assert run(make_config(tiny_dataset, optim=optim), tmp_path / "run").num_steps == 6


def test_the_same_seed_gives_the_same_bytes_whatever_the_number_of_workers(tiny_dataset, tmp_path):
    for name, workers in (("one", 0), ("two", 2)):
        run(make_config(tiny_dataset, data={"num_workers": workers}), tmp_path / name)
    assert same_weights(tmp_path / "one" / "last.pt", tmp_path / "two" / "last.pt")


def test_the_number_printed_in_training_is_that_of_eval(tiny_dataset, tmp_path, device):
    config = make_config(
        tiny_dataset, train={"steps": 30, "eval_every_epochs": 5}, optim={"lr": 3e-3}
    )
    best = run(config, tmp_path / "run", device=device).best
    again = evaluate_checkpoint(tmp_path / "run" / "best.pt", tmp_path / "eval", device=device)
    assert again.metrics == {name: value for name, value in best.items() if name != "step"}
    written = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert written["metrics"] == again.metrics
    assert (tmp_path / "eval" / "detections.json").is_file()


@pytest.fixture
def stop_after(monkeypatch):
    """Send this process a signal in the middle of the n-th step."""

    def arrange(step, number=signal.SIGTERM):
        real, count = step_module._forward, iter(range(1, 10**6))

        def forward(*arguments, **keywords):
            if next(count) == step:
                signal.raise_signal(number)
            return real(*arguments, **keywords)

        monkeypatch.setattr(step_module, "_forward", forward)

    return arrange


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_stopped_and_resumed_run_ends_with_the_bytes_of_one_that_was_not(
    tiny_dataset, tmp_path, stop_after, monkeypatch, number, exit_code, device
):
    config = make_config(tiny_dataset, runtime={"deterministic": device.type == "cuda"})
    run(config, tmp_path / "straight", device=device)
    stop_after(3, number)
    with pytest.raises(
        StoppedError, match=r"after step 3 of 6; step 3 is saved in .*last\.pt"
    ) as caught:
        run(config, tmp_path / "stopped", device=device)
    assert caught.value.exit_code == exit_code
    monkeypatch.undo()
    run(config, tmp_path / "stopped", device=device, resume=True)
    assert same_weights(tmp_path / "straight" / "last.pt", tmp_path / "stopped" / "last.pt")
    assert same_weights(tmp_path / "straight" / "best.pt", tmp_path / "stopped" / "best.pt")

    def comparable(name):
        rows = read_rows(tmp_path / name / "metrics.jsonl")
        varying = ("images_per_second", "data_share", "memory_gib")
        return [{k: v for k, v in row.items() if k not in varying} for row in rows]

    assert comparable("straight") == comparable("stopped")


def test_a_run_stopped_while_evaluating_evaluates_when_resumed(tiny_dataset, tmp_path, monkeypatch):
    real = validation_module.evaluate_detector

    def stopped(*arguments, **keywords):
        signal.raise_signal(signal.SIGTERM)
        return real(*arguments, **keywords)

    monkeypatch.setattr(validation_module, "evaluate_detector", stopped)
    with pytest.raises(StoppedError, match="after step 2 of 6"):
        run(make_config(tiny_dataset), tmp_path / "run")
    monkeypatch.undo()
    run(make_config(tiny_dataset), tmp_path / "run", resume=True)
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows if "AP" in row] == [2, 4, 6]


def test_a_finished_run_says_so(tiny_dataset, tmp_path):
    config = make_config(tiny_dataset)
    first = run(config, tmp_path / "run")
    again = run(config, tmp_path / "run", resume=True)
    assert again.was_finished
    assert again.best == first.best
    assert again.summary().startswith("was finished already: 6 steps; AP ")


def test_a_folder_with_a_run_is_not_overwritten(tiny_dataset, tmp_path):
    config = make_config(tiny_dataset)
    run(config, tmp_path / "run")
    before = (tmp_path / "run" / "last.pt").read_bytes()
    with pytest.raises(ConfigError, match="holds a run; go on with it by --resume"):
        run(config, tmp_path / "run")
    assert (tmp_path / "run" / "last.pt").read_bytes() == before


def test_resuming_with_another_configuration_names_the_keys(tiny_dataset, tmp_path):
    run(make_config(tiny_dataset), tmp_path / "run")
    changed = make_config(tiny_dataset, optim={"lr": 0.5}, data={"num_workers": 1})
    with pytest.raises(ConfigError, match=r"changed: optim\.lr;"):
        run(changed, tmp_path / "run", resume=True)


def test_resuming_with_other_data_is_refused(tiny_dataset, tmp_path):
    run(make_config(tiny_dataset), tmp_path / "run")
    document = json.loads((tiny_dataset / "train.json").read_text())
    document["images"].pop()
    document["annotations"].pop()
    (tiny_dataset / "train.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="was trained on 4 images, now there are 3"):
        run(make_config(tiny_dataset), tmp_path / "run", resume=True)


def test_resuming_where_nothing_is_starts_a_run(tiny_dataset, tmp_path):
    assert run(make_config(tiny_dataset), tmp_path / "run", resume=True).num_steps == 6


def test_a_loss_that_is_not_finite_names_step_and_images(tiny_dataset, tmp_path, monkeypatch):
    real = step_module._forward

    def forward(*arguments, **keywords):
        return {name: loss * torch.inf for name, loss in real(*arguments, **keywords).items()}

    monkeypatch.setattr(step_module, "_forward", forward)
    with pytest.raises(
        NonFiniteLossError, match=r"step \d: .*loss.* is (nan|inf), on images 1\d, 1"
    ):
        run(make_config(tiny_dataset), tmp_path / "run")


def test_without_validation_data_the_last_checkpoint_is_the_result(tiny_dataset, tmp_path):
    result = run(make_config(tiny_dataset, data={"val": None}), tmp_path / "run")
    assert result.checkpoint == tmp_path / "run" / "last.pt"
    assert "no validation data" in result.summary()


def test_missing_images_are_told_before_training(tiny_dataset, tmp_path):
    (tiny_dataset / "images" / "1.png").unlink()
    with pytest.raises(DatasetError, match=r"1 of the 4 images .*1\.png"):
        run(make_config(tiny_dataset), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_an_error_that_names_it_or_is_skipped(tiny_dataset, tmp_path, workers):
    (tiny_dataset / "images" / "1.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"1\.png"):
        run(make_config(tiny_dataset, data={"num_workers": workers}), tmp_path / "run")
    skipping = make_config(tiny_dataset, data={"num_workers": workers, "broken_images": "skip"})
    assert run(skipping, tmp_path / "skipping").num_steps == 6


def test_validation_data_without_any_class_of_the_training_data_are_refused(tiny_dataset, tmp_path):
    document = json.loads((tiny_dataset / "train.json").read_text())
    for category, name in zip(document["categories"], ("cube", "ring"), strict=True):
        category["name"] = name
    (tiny_dataset / "val.json").write_text(json.dumps(document))
    config = make_config(
        tiny_dataset, data={"val": {"annotations": "val.json", "images": "images"}}
    )
    with pytest.raises(DatasetError, match=r"val.json has none .*cube, ring.*square, circle"):
        run(config, tmp_path / "run")


@pytest.mark.parametrize(("part", "purpose"), [("train", "train on"), ("val", "evaluate on")])
def test_data_without_an_object_are_refused_before_the_first_step(tiny_dataset, part, purpose):
    document = json.loads((tiny_dataset / "train.json").read_text())
    (tiny_dataset / "none.json").write_text(json.dumps({**document, "annotations": []}))
    config = make_config(
        tiny_dataset, data={part: {"annotations": "none.json", "images": "images"}}
    )
    with pytest.raises(DatasetError, match=rf"none\.json: no annotated object to {purpose}"):
        run(config, tiny_dataset / "run")
    assert not (tiny_dataset / "run").exists()
