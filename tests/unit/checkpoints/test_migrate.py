"""Checkpoints of old formats: they load, find the same, and their runs go on.

`written_by_0_1` is what version 0.1 left of two of six steps on the pictures of `tiny_dataset`:
`last.pt` (format 1), the run's `config.yaml`, and what that version then found in the first one.
"""

import json
from pathlib import Path

import pytest
import torch

from dyhead_det import load
from dyhead_det.checkpoints.checkpoint import content_of, load_checkpoint, parse_checkpoint
from dyhead_det.checkpoints.migrate import VERSION, migrate
from dyhead_det.config.file import load_config
from dyhead_det.errors import ConfigError
from dyhead_det.training.train import train

OLD_RUN = Path(__file__).parent / "written_by_0_1"

# The mean of the losses of steps 5 and 6 in metrics.jsonl, where version 0.1 trained to the end.
LAST_LOSS_OF_0_1 = 3.6230673789978027


def test_the_kept_file_is_of_the_first_format():
    content = torch.load(OLD_RUN / "last.pt", weights_only=True)
    assert content["version"] == 1
    assert "body" in content["config"]["model"]


def test_a_checkpoint_of_0_1_is_read_with_the_new_names():
    config = load_checkpoint(OLD_RUN / "last.pt").config
    assert config.model.backbone.name == "timm/test_efficientnet"
    assert config.optim.backbone_lr_factor == 0.5
    assert config.train.freeze is not None
    assert config.train.freeze.backbone_epochs == 2


def test_a_checkpoint_of_0_1_finds_what_it_found_in_0_1(tiny_dataset):
    expected = json.loads((OLD_RUN / "detections.json").read_text())
    found = load(OLD_RUN / "last.pt", device="cpu").predict(
        tiny_dataset / "images" / "0.png", min_score=0.0, max_detections=len(expected["scores"])
    )
    assert found.labels.tolist() == expected["labels"]
    assert found.scores.tolist() == pytest.approx(expected["scores"], abs=2e-6)  # six digits kept
    for box, expected_box in zip(found.boxes.tolist(), expected["boxes"], strict=True):
        assert box == pytest.approx(expected_box, abs=5e-3)  # pixels, three digits kept


def test_a_run_of_0_1_goes_on_as_if_nothing_had_happened(tiny_dataset, tmp_path, monkeypatch):
    out = tmp_path / "run"
    out.mkdir()
    (out / "last.pt").write_bytes((OLD_RUN / "last.pt").read_bytes())
    (tmp_path / "run.yaml").write_text(_with_todays_keys((OLD_RUN / "config.yaml").read_text()))
    monkeypatch.chdir(tiny_dataset)
    config = load_config(tmp_path / "run.yaml")
    train(config, out, device=torch.device("cpu"), resume=True)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    (last,) = [row for row in rows if row["step"] == 6 and "loss" in row]
    assert last["loss"] == pytest.approx(LAST_LOSS_OF_0_1, rel=1e-5)


def _with_todays_keys(text: str) -> str:
    text = text.replace("body:", "backbone:").replace("body_", "backbone_")
    return text.replace("  tensorboard: false\n", "")


def test_the_configuration_of_an_old_run_folder_is_refused_with_the_new_names():
    with pytest.raises(ConfigError) as caught:
        load_config(OLD_RUN / "config.yaml")
    path = OLD_RUN / "config.yaml"
    assert str(caught.value).splitlines() == [
        f"{path}: model.body: is called model.backbone now; rename it",
        f"{path}: optim.body_lr_factor: is called optim.backbone_lr_factor now; rename it",
        f"{path}: train.freeze.body_epochs: is called train.freeze.backbone_epochs now; rename it",
        f"{path}: train.freeze.body_steps: is called train.freeze.backbone_steps now; rename it",
        f"{path}: train.tensorboard: is one of train.trackers now; write trackers: [tensorboard], "
        "or leave it out if it is false",
    ]


@pytest.mark.parametrize(
    ("written", "trackers"),
    [
        ({"tensorboard": True}, ("tensorboard",)),
        ({"tensorboard": True, "trackers": ["wandb", "tensorboard"]}, ("tensorboard", "wandb")),
        ({"tensorboard": False, "trackers": ["wandb"]}, ("wandb",)),
    ],
)
def test_tensorboard_of_format_2_is_one_of_the_trackers(written, trackers):
    content = content_of(load_checkpoint(OLD_RUN / "last.pt"))
    train_section = {**content["config"]["train"], **written}
    content |= {"version": 2, "config": {**content["config"], "train": train_section}}
    assert parse_checkpoint(content, source="last.pt").config.train.trackers == trackers


def test_a_file_of_the_current_version_stays_as_it_is():
    content = {"config": {"model": {"backbone": {}}}, "version": VERSION}
    assert migrate(content, VERSION) is content
