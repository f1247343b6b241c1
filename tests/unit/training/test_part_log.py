"""Parts of a detector measured around a step, against a step worked out by hand."""

import math

import pytest
import torch

from dyhead_det.models.detectors import build_detector
from dyhead_det.training.part_log import PartLog, detector_parts

from conftest import make_config


def build(config):
    return build_detector(config.model, num_classes=2, load_backbone_weights=False)


@pytest.fixture(scope="module")
def detector():
    return build(make_config())


def test_every_parameter_belongs_to_one_part(detector):
    parts = detector_parts(detector)
    assert set(parts) == {"backbone", "fpn", "dyhead", "offsets", "residual_scale", "heads"}
    ids = [id(parameter) for parameters in parts.values() for parameter in parameters]
    assert sorted(ids) == sorted(id(parameter) for parameter in detector.parameters())
    assert [tuple(each.shape) for each in parts["offsets"]] == [(27, 16, 3, 3), (27,)]
    assert [tuple(each.shape) for each in parts["residual_scale"]] == [(16,)]


def test_without_dyhead_it_has_no_parts():
    plain = build(make_config(model={"dyhead": None}))
    assert set(detector_parts(plain)) == {"backbone", "fpn", "heads"}


def test_norms_ratios_and_clipping_are_those_of_the_step(detector):
    parts = detector_parts(detector)
    scale, bias = parts["residual_scale"][0], parts["offsets"][1]
    with torch.no_grad():
        scale.fill_(0.5)
        bias.zero_()
    optimizer = torch.optim.SGD(detector.parameters(), lr=0.1)
    # The gradients as they are after clipping a norm of 12 to 3.
    scale.grad, bias.grad = torch.full_like(scale, 2.0), torch.ones_like(bias)
    values = {"grad_norm": 12.0}
    with PartLog(detector, clip_norm=3.0).around_step(values):
        optimizer.step()
    assert values == {
        "grad_norm": 12.0,
        "clipped": 1.0,
        "grad_norm/residual_scale": pytest.approx(4 * 8),  # 16 channels
        "grad_norm/offsets": pytest.approx(4 * math.sqrt(27)),
        "update_ratio/residual_scale": pytest.approx(0.2 / 0.3),  # from .5 to .3
        "update_ratio/offsets": pytest.approx(1.0),  # from zero
    }


@pytest.mark.parametrize("clip_norm", [3.0, None])
def test_gradients_below_the_limit_are_not_clipped(detector, clip_norm):
    values = {"grad_norm": 2.0}
    detector.zero_grad(set_to_none=True)
    with PartLog(detector, clip_norm=clip_norm).around_step(values):
        pass
    assert values == {"grad_norm": 2.0, "clipped": 0.0}


def test_weights_that_are_zero_and_stay_so_have_no_ratio(detector):
    bias = detector_parts(detector)["offsets"][1]
    detector.zero_grad(set_to_none=True)
    with torch.no_grad():
        bias.zero_()
    bias.grad = torch.zeros_like(bias)
    values = {"grad_norm": 0.0}
    with PartLog(detector, clip_norm=None).around_step(values):
        pass
    assert values["update_ratio/offsets"] == 0


def test_a_step_that_is_left_out_is_not_measured(detector):
    values = {"grad_norm": 0.0, "skipped": 1.0}
    with PartLog(detector, clip_norm=None).around_step(values):
        pass
    assert values == {"grad_norm": 0.0, "skipped": 1.0}
