"""What a run leaves for people, also where it fails, is stopped or cannot write."""

import csv
import errno
import os
import signal

import pytest
import torch
from PIL import Image

from dyhead_det.checkpoints.checkpoint import load_checkpoint
from dyhead_det.config.schema import changed_keys, to_plain
from dyhead_det.errors import DatasetError, NonFiniteLossError, StoppedError
from dyhead_det.prediction.evaluate_checkpoint import evaluate_checkpoint
from dyhead_det.reporting.metrics_file import read_rows
from dyhead_det.reporting.tensorboard import TensorBoardLog
from dyhead_det.training import record as record_module
from dyhead_det.training import step as step_module
from dyhead_det.training.resume import HARMLESS_KEYS
from dyhead_det.training.train import train

from conftest import make_config
from html_pages import read_page

PICTURES = ("curves.png", "first_batch.png", "validation.png")


def run(config, out, *, resume=False):
    return train(config, out, device=torch.device("cpu"), resume=resume)


def csv_rows(path):
    with path.open(newline="") as file:
        return [
            {name: float(value) for name, value in line.items() if value}
            for line in csv.DictReader(file)
        ]


def numbers(rows):
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def test_a_run_leaves_numbers_pictures_and_a_report(tiny_dataset, tmp_path):
    result = run(make_config(tiny_dataset), tmp_path / "exp")
    out = tmp_path / "exp"
    rows = read_rows(out / "metrics.jsonl")
    assert csv_rows(out / "metrics.csv") == numbers(rows)
    assert [row["AP/square"] for row in rows if "AP" in row] == [
        row["AP"]
        for row in rows
        if "AP" in row  # no circle is annotated
    ]
    assert all(0 <= row["data_share"] <= 1 for row in rows if "loss" in row)
    for name in PICTURES:
        with Image.open(out / name) as picture:
            picture.load()
    report = read_page(out / "report.html")
    assert report.needs_nothing
    assert "Finished after 6 of 6 steps." in report.text
    assert report.rows[f"best, step {result.best['step']}"][0] == f"{result.best['AP']:.3f}"
    assert report.rows["images"] == ["4", "4"]
    assert "Steps 1 to 6, the slowest part first." in report.text
    for part in ("training steps", "loading data", "evaluation", "saving checkpoints"):
        assert report.rows[part][0].startswith("00:0")
    assert len(report.pictures) == len(PICTURES)
    assert not (out / "tensorboard").exists()


def test_parts_of_the_detector_are_logged_on_request_and_dyhead_is_measured(tiny_dataset, tmp_path):
    out = tmp_path / "exp"
    run(make_config(tiny_dataset, train={"log_parts": True, "steps": 2}), out)
    losses, evaluated = read_rows(out / "metrics.jsonl")
    for part in ("backbone", "fpn", "dyhead", "residual_scale", "heads"):
        assert losses[f"grad_norm/{part}"] > 0
        assert losses[f"update_ratio/{part}"] > 0
    assert losses["clipped"] == 0  # nothing limits the norm
    assert evaluated["dyhead/block0/level0/mean_offset"] >= 0
    assert evaluated["dyhead/residual_scale/mean"] == pytest.approx(1, abs=0.01)
    assert any(name.startswith("Gradients") for name in read_page(out / "report.html").pictures)


def test_a_run_without_validation_data_has_a_report(tiny_dataset, tmp_path):
    run(make_config(tiny_dataset, data={"val": None}), tmp_path / "run")
    report = read_page(tmp_path / "run" / "report.html").text
    assert "Nothing has been evaluated." in report
    assert not (tmp_path / "run" / "validation.png").exists()


def test_a_run_that_cannot_draw_or_report_trains_all_the_same(
    tiny_dataset, tmp_path, monkeypatch, caplog
):
    config = make_config(tiny_dataset, train={"trackers": ["tensorboard"]})
    run(config, tmp_path / "untroubled")

    def fail(*_arguments, **_keywords):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    names = ("draw_batch", "draw_validation", "plot_curves", "write_csv", "write_run_report")
    for name in names:
        monkeypatch.setattr(record_module, name, fail)
    monkeypatch.setattr(TensorBoardLog, "add", fail)
    run(config, tmp_path / "troubled")
    weights = [load_checkpoint(tmp_path / n / "last.pt").model for n in ("untroubled", "troubled")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    for name in (*PICTURES, "metrics.csv", "report.html", "tensorboard"):
        assert f"{name} could not be written, the run goes on: OSError" in caplog.text
    assert caplog.text.count("tensorboard could not be written") == 1
    assert not (tmp_path / "troubled" / "report.html").exists()
    assert len(read_rows(tmp_path / "troubled" / "metrics.jsonl")) == 6


def test_a_failed_run_shows_how_far_it_came(tiny_dataset, tmp_path):
    config = make_config(tiny_dataset, optim={"name": "sgd", "lr": 1000.0})
    with pytest.raises(NonFiniteLossError):
        run(config, tmp_path / "run")
    report = read_page(tmp_path / "run" / "report.html").text
    assert "Ended: step " in report
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert csv_rows(tmp_path / "run" / "metrics.csv") == numbers(rows)


def test_a_resumed_run_has_each_number_once_in_all_files(tiny_dataset, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    config = make_config(tiny_dataset, train={"trackers": ["tensorboard"]})
    real, count = step_module._forward, iter(range(1, 100))

    def stopped_in_step_3(*arguments, **keywords):
        if next(count) == 3:
            signal.raise_signal(signal.SIGTERM)
        return real(*arguments, **keywords)

    monkeypatch.setattr(step_module, "_forward", stopped_in_step_3)
    with pytest.raises(StoppedError):
        run(config, tmp_path / "run")
    assert "Ended: stopped by SIGTERM" in read_page(tmp_path / "run" / "report.html").text
    picture = (tmp_path / "run" / "first_batch.png").read_bytes()
    monkeypatch.undo()
    run(config, tmp_path / "run", resume=True)
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [2, 2, 4, 4, 6, 6]
    assert csv_rows(tmp_path / "run" / "metrics.csv") == numbers(rows)
    losses = [
        (event.step, round(value.tensor.float_val[0], 4))
        for path in sorted((tmp_path / "run" / "tensorboard").iterdir())
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
        if value.tag == "losses/loss"
    ]
    assert losses == [(row["step"], round(row["loss"], 4)) for row in rows if "loss" in row]
    assert (tmp_path / "run" / "first_batch.png").read_bytes() == picture
    report = read_page(tmp_path / "run" / "report.html").text
    assert "Steps 4 to 6, the slowest part first." in report


def test_slow_data_are_told_once_with_what_to_change(tiny_dataset, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(record_module.TrainProgress, "data_share", lambda _progress: 0.5)
    run(make_config(tiny_dataset, train={"log_every_steps": 1}), tmp_path / "run")
    told = [line for line in caplog.messages if line.startswith("waiting for data takes 50%")]
    assert len(told) == 1
    assert "data.num_workers" in told[0]


def test_tensorboard_may_be_switched_on_when_a_run_is_resumed():
    old = make_config()
    new = make_config(train={"trackers": ["tensorboard"]})
    assert changed_keys(to_plain(old), to_plain(new), HARMLESS_KEYS) == []


def test_unreadable_validation_images_are_left_out_of_the_numbers_and_named_in_them(
    tiny_dataset, tmp_path
):
    (tiny_dataset / "val").mkdir()
    for name in ("0.png", "2.png", "3.png"):
        (tiny_dataset / "val" / name).write_bytes((tiny_dataset / "images" / name).read_bytes())
    val = {"annotations": "train.json", "images": "val"}
    config = make_config(
        tiny_dataset,
        data={"broken_images": "skip", "val": val},
        train={"steps": 2},
    )
    run(config, tmp_path / "run")
    (row,) = (row for row in read_rows(tmp_path / "run" / "metrics.jsonl") if "AP" in row)
    assert row["num_unreadable_images"] == 1
    assert csv_rows(tmp_path / "run" / "metrics.csv")[-1]["num_unreadable_images"] == 1
    report = read_page(tmp_path / "run" / "report.html").text
    assert "1 of 4 images could not be read; the numbers are those of the others." in report
    again = {"data": None, "images": None, "backend": None, "batch_size": None}
    again |= {"short_edge": None, "long_edge": None, "device": torch.device("cpu")}
    best = tmp_path / "run" / "best.pt"
    result = evaluate_checkpoint(best, tmp_path / "eval", **again)
    assert (result.ap, result.num_unreadable_images) == (row["AP"], 1)
    with pytest.raises(DatasetError, match=r"1.png.*--broken-images skip"):
        evaluate_checkpoint(best, tmp_path / "eval", broken_images="error", **again)
