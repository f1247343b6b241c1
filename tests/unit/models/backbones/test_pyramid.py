"""The builder of DyHead: where the deform backend comes from."""

import pytest
import torch

from dyhead_det.config.schema import DyHeadConfig
from dyhead_det.errors import ConfigError
from dyhead_det.models.backbones.pyramid import BACKEND_VARIABLE, build_dyhead
from dyhead_det.models.detectors import build_detector

from conftest import make_config


@pytest.mark.parametrize("scheme", ["levels", "stacked"])
def test_the_environment_replaces_only_auto_and_is_read_when_the_model_is_built(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def backend(configured: str) -> str:
        config = DyHeadConfig(scheme=scheme, num_blocks=1, deform_backend=configured)
        return build_dyhead(config, 16).deform_backend

    monkeypatch.delenv(BACKEND_VARIABLE, raising=False)
    assert backend("auto") == "auto"
    monkeypatch.setenv(BACKEND_VARIABLE, "reference")
    assert backend("auto") == "reference"
    assert backend("torchvision") == "torchvision"


@pytest.mark.parametrize("named", ["fast", ""])
def test_an_unknown_backend_in_the_environment_is_refused_with_the_known_ones(
    named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BACKEND_VARIABLE, named)
    with pytest.raises(ConfigError, match=f"{BACKEND_VARIABLE}: '{named}' is none of auto, torch"):
        build_dyhead(DyHeadConfig(num_blocks=1), 16)


def test_group_norms_bring_the_maps_of_the_fpn_to_one():
    backbone = {"name": "timm/test_resnet", "weights": "none", "norm": "normal"}
    images = 100 * torch.rand(2, 3, 64, 64)
    rms = {}
    for fpn_norm in ("none", "group"):
        model = {
            "detector": {"name": "atss"},
            "backbone": backbone,
            "fpn_norm": fpn_norm,
            "dyhead": None,
            "channels": 32,
        }
        built = build_detector(make_config(model=model).model, num_classes=2).backbone.train()
        with torch.no_grad():
            maps = list(built(images).values())  # P7 is one pixel
        rms[fpn_norm] = [float(x.square().mean().sqrt()) for x in maps]
    assert rms["group"] == pytest.approx([1.0] * 5, abs=0.05)
    assert rms["none"] != pytest.approx([1.0] * 5, abs=0.05)
