"""The moving average against its formula."""

import pytest
import torch

from dyhead_det.config.schema import EMAConfig
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


def test_the_average_is_a_detector_of_its_own(detector):
    ema = build_ema(EMAConfig(), detector)
    image = [torch.rand(3, 64, 64)]
    target = [{"boxes": torch.tensor([[1.0, 1, 30, 30]]), "labels": torch.tensor([0])}]
    detector.train()(image, target, seed=1)
    ema.module.train()(image, target, seed=1)
    assert ema.module.image_seeds is not detector.image_seeds
    assert ema.module.transform.torch_choice.__self__ is ema.module.image_seeds
    assert ema.module.network.rpn.fg_bg_sampler.image_seeds is ema.module.image_seeds
