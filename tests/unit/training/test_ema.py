"""The moving average against its formula, for what every backbone consists of."""

import pytest
import torch
from torch import nn

from dyhead_det.config.schema import BACKBONE_NAMES, BackboneConfig, EMAConfig
from dyhead_det.models.backbones.build import build_backbone
from dyhead_det.models.detectors import build_detector
from dyhead_det.training.ema import build_ema, ema_decay

from conftest import make_config


@pytest.fixture
def detector():
    return build_detector(make_config().model, num_classes=2, load_backbone_weights=False)


def move(detector, value):
    """Set all parameters and running means to a value."""
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.fill_(value)
        for name, buffer in detector.named_buffers():
            if name.endswith("running_mean"):
                buffer.fill_(value)


def test_the_decay_warms_up_to_its_value():
    config = EMAConfig(decay=0.9)
    assert [ema_decay(config, n) for n in (0, 8, 80, 1000)] == pytest.approx([0.1, 0.5, 0.9, 0.9])
    assert ema_decay(EMAConfig(decay=0.9, warmup=False), 0) == 0.9


def test_parameters_and_running_means_follow_the_formula(detector):
    """The first update copies; then with decay 3/4: 0 -> 0 + 8/4 = 2 -> 2 + (10 - 2)/4 = 4."""
    ema = build_ema(EMAConfig(decay=0.75, warmup=False), detector)
    for value, expected in ((0.0, 0.0), (8.0, 2.0), (10.0, 4.0)):
        move(detector, value)
        ema.update_parameters(detector)
        state = ema.module.state_dict()
        assert float(state["network.rpn.head.bbox_pred.bias"][0]) == pytest.approx(expected)
        means = [x for name, x in state.items() if name.endswith("running_mean")]
        assert means
        assert all(torch.allclose(x, torch.tensor(expected)) for x in means)


def test_what_does_not_move_keeps_its_bits(detector):
    before = {name: x.clone() for name, x in detector.state_dict().items()}
    ema = build_ema(EMAConfig(), detector)
    for _ in range(20):
        ema.update_parameters(detector)
    assert all(torch.equal(x, before[name]) for name, x in ema.module.state_dict().items())


def backbone(name):
    config = BackboneConfig(name=name, weights="none", norm="normal")
    return build_backbone(config, stage_names=("c2", "c3", "c4", "c5"), load_weights=False)


def one_number_each(model):
    """Return a module with one number in the place of every tensor: same names and types."""
    state = nn.Module()
    for name, parameter in model.named_parameters():
        number = nn.Parameter(torch.zeros(1, dtype=parameter.dtype))
        state.register_parameter(name.replace(".", "-"), number)
    for name, buffer in model.named_buffers():
        state.register_buffer(name.replace(".", "-"), torch.zeros(1, dtype=buffer.dtype))
    return state


@pytest.mark.parametrize("name", BACKBONE_NAMES)
def test_floating_tensors_are_averaged_and_all_others_copied(name):
    """Indices and counts are no quantities to average: 0 and 8 became 2, 0 and 1 stayed 0."""
    with torch.device("meta"):
        model = backbone(name)
    state = one_number_each(model)
    ema = build_ema(EMAConfig(decay=0.75, warmup=False), state)
    for value in (0, 8):
        with torch.no_grad():
            for x in state.state_dict().values():
                x.fill_(value)
        ema.update_parameters(state)
    for key, x in ema.module.state_dict().items():
        assert x == (2 if x.is_floating_point() else 8), key


def test_the_windows_of_a_swin_transformer_stay_as_they_are():
    model = backbone("swin_t")
    before = {name: x.clone() for name, x in model.named_buffers()}
    assert any(name.endswith("relative_position_index") for name in before)
    ema = build_ema(EMAConfig(), model)
    for _ in range(60):
        ema.update_parameters(model)
    assert all(torch.equal(x, before[name]) for name, x in ema.module.named_buffers())


def test_indices_that_an_older_version_averaged_are_mended_on_loading():
    model = backbone("swin_t")
    state = {name: x.clone() for name, x in model.state_dict().items()}
    spoilt = {n: x // 2 if n.endswith("position_index") else x for n, x in state.items()}
    model.load_state_dict(spoilt)
    assert all(torch.equal(x, state[name]) for name, x in model.state_dict().items())


def test_the_average_is_a_detector_of_its_own(detector):
    ema = build_ema(EMAConfig(), detector)
    image = [torch.rand(3, 64, 64)]
    target = [{"boxes": torch.tensor([[1.0, 1, 30, 30]]), "labels": torch.tensor([0])}]
    detector.train()(image, target, seed=1)
    ema.module.train()(image, target, seed=1)
    assert ema.module.image_seeds is not detector.image_seeds
    assert ema.module.transform.torch_choice.__self__ is ema.module.image_seeds
    assert ema.module.network.rpn.fg_bg_sampler.image_seeds is ema.module.image_seeds
