"""Settings that contradict each other are refused, settings without effect are named."""

import pytest

from dyhead_det.config.checks import contradictions, require_honorable, without_effect
from dyhead_det.config.file import load_config
from dyhead_det.errors import ConfigError

from conftest import make_config


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        (
            {"model": {"input": {"short_edge": 640, "long_edge": 320}}},
            "model.input.short_edge: 640 is longer than long_edge, 320",
        ),
        (
            {"model": {"input": {"multi_scale": [64, 96]}}},
            "model.input.multi_scale: 96 is longer than long_edge, 64",
        ),
        (
            {"schedule": {"warmup_steps": 7}},
            "schedule.warmup_steps: 7, but the run has 6 steps",
        ),
        ({"train": {"freeze": {"backbone_steps": 6}}}, "train.freeze: 6 of 6 steps"),
        (
            {"train": {"epochs": 3, "steps": None, "freeze": {"backbone_epochs": 3}}},
            "train.freeze.backbone_epochs: 3 of 3 epochs",
        ),
        (
            {
                "runtime": {"deterministic": True},
                "model": {"dyhead": {"deform_backend": "triton"}},
            },
            "model.dyhead.deform_backend: triton adds gradients in any order",
        ),
        (
            {"runtime": {"deterministic": True, "cudnn_benchmark": True}},
            "runtime.cudnn_benchmark: takes whichever algorithm is fastest",
        ),
    ],
)
def test_what_cannot_be_honored_is_refused_with_the_reason(sections, problem):
    (found,) = contradictions(make_config(**sections))
    assert found.startswith(problem)


def test_a_run_that_can_be_honored_has_no_contradictions():
    config = make_config(
        model={"input": {"short_edge": 48, "multi_scale": [48, 64]}},
        schedule={"warmup_steps": 6},
        train={"freeze": {"backbone_steps": 5}},
    )
    assert contradictions(config) == []
    require_honorable(config, num_steps=6, steps_per_epoch=2)


def test_lengths_in_epochs_are_compared_once_the_data_are_known():
    config = make_config(
        train={"epochs": 3, "steps": None, "freeze": {"backbone_steps": 6}},
        schedule={"warmup_steps": 7},
    )
    assert contradictions(config) == []
    with pytest.raises(ConfigError) as caught:
        require_honorable(config, num_steps=6, steps_per_epoch=2)
    warmup, freeze = str(caught.value).splitlines()
    assert warmup.startswith("schedule.warmup_steps: 7, but the run has 6 steps")
    assert freeze.startswith("train.freeze: 6 of 6 steps")


def test_contradictions_of_a_file_are_told_with_its_name(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "data: {train: {annotations: a, images: i}}\nmodel: {detector: {name: atss}}\n"
        "train: {steps: 2000}\n"
    )
    assert load_config(path).train.steps == 2000
    with pytest.raises(ConfigError, match=r"run\.yaml: model\.input\.short_edge: 640 is longer"):
        load_config(path, ("model.input={short_edge: 640, long_edge: 320}",))
    with pytest.raises(ConfigError, match=r"run\.yaml: schedule\.warmup_steps: 1000, but the run"):
        load_config(path, ("train.steps=999",))


@pytest.mark.parametrize(
    ("sections", "keys"),
    [
        ({"optim": {"momentum": 0.5}}, ["optim.momentum"]),
        (
            {"schedule": {"gamma": 0.5, "milestones": [0.5]}},
            ["schedule.milestones", "schedule.gamma"],
        ),
        (
            {"schedule": {"name": "multi_step", "final_lr_factor": 0.1}},
            ["schedule.final_lr_factor"],
        ),
        ({"schedule": {"warmup_steps": 0, "warmup_factor": 0.1}}, ["schedule.warmup_factor"]),
        ({"data": {"prefetch_factor": 4}}, ["data.prefetch_factor"]),
        (
            {"train": {"batch_size": 1}, "data": {"group_by_aspect_ratio": True}},
            ["data.group_by_aspect_ratio"],
        ),
        ({"model": {"weights": "x.pt"}}, ["model.backbone.weights"]),
        (
            {"model": {"dyhead": {"spatial": "conv", "coarse_offsets": "cropped"}}},
            ["model.dyhead.coarse_offsets"],
        ),
        (
            {"model": {"dyhead": {"attention": ["task"], "spatial": "conv"}}},
            ["model.dyhead.spatial"],
        ),
        (
            {"model": {"dyhead": {"attention": ["scale"], "dynamic_relu": "shared"}}},
            ["model.dyhead.dynamic_relu"],
        ),
        (
            {"model": {"dyhead": {"residual": False, "residual_scale": 0.5}}},
            ["model.dyhead.residual_scale"],
        ),
        (
            {"model": {"dyhead": None}, "optim": {"offset_lr_factor": 0.1}},
            ["optim.offset_lr_factor"],
        ),
        (
            {"model": {"backbone": {"frozen_stages": 4}}, "optim": {"backbone_lr_factor": 0.1}},
            ["optim.backbone_lr_factor"],
        ),
        ({"data": {"val": None}, "train": {"eval_every_epochs": 2}}, ["train.eval_every_epochs"]),
        (
            {"data": {"val": None}, "train": {"ema": {"evaluate_raw": True}}},
            ["train.ema.evaluate_raw"],
        ),
        (
            {"train": {"steps": None, "epochs": 3, "early_stopping": {"patience": 3}}},
            ["train.early_stopping"],
        ),
        (
            {"train": {"steps": None, "epochs": 3, "keep_every_epochs": 4}},
            ["train.keep_every_epochs"],
        ),
    ],
)
def test_a_setting_without_effect_is_named(sections, keys):
    lines = without_effect(make_config(**sections))
    assert [line.partition(":")[0] for line in lines] == keys


def test_defaults_and_settings_with_effect_are_not_named():
    assert without_effect(make_config()) == []
    spelled_out = {"momentum": 0.9, "backbone_lr_factor": 1.0}
    assert without_effect(make_config(optim=spelled_out)) == []
