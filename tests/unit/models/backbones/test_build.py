"""Backbones: the right maps, what trains, which weights are loaded and what is said about them."""

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torchvision.ops import FrozenBatchNorm2d

from dyhead_det.config.schema import BackboneConfig
from dyhead_det.errors import CheckpointError, ConfigError
from dyhead_det.models.backbones.build import build_backbone, measure_channels

ALL_STAGES = ("c2", "c3", "c4", "c5")


def build(name="resnet18", *, weights="none", norm="normal", frozen_stages=0, load_weights=True):
    config = BackboneConfig(name=name, weights=str(weights), norm=norm, frozen_stages=frozen_stages)
    return build_backbone(config, stage_names=ALL_STAGES, load_weights=load_weights)


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("resnet18", [64, 128, 256, 512]),
        ("resnext50_32x4d", [256, 512, 1024, 2048]),
        ("mobilenet_v3_large", [24, 40, 112, 960]),
        ("efficientnet_b0", [24, 40, 112, 320]),
        ("convnext_tiny", [96, 192, 384, 768]),
        ("swin_t", [96, 192, 384, 768]),
        ("timm/tf_efficientnet_lite0", [24, 40, 112, 320]),
        ("timm/swin_tiny_patch4_window7_224", [96, 192, 384, 768]),
    ],
)
def test_bodies_give_four_maps_of_strides_4_to_32(name, channels):
    pytest.importorskip("timm")
    backbone = build(name).eval()
    assert list(measure_channels(backbone).values()) == channels
    with torch.no_grad():
        maps = backbone(torch.zeros(2, 3, 96, 64))
    assert [tuple(x.shape) for x in maps.values()] == [
        (2, c, 96 // stride, 64 // stride)
        for c, stride in zip(channels, (4, 8, 16, 32), strict=True)
    ]


def test_measuring_leaves_batch_norm_statistics_alone():
    backbone = build()
    before = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    measure_channels(backbone)
    assert backbone.training
    assert all(torch.equal(buffer, before[name]) for name, buffer in backbone.named_buffers())


def test_a_timm_model_without_the_strides_is_refused():
    pytest.importorskip("timm")
    with pytest.raises(ConfigError, match=r"needs maps of strides 4, 8, 16 and 32, vit_tiny"):
        build("timm/vit_tiny_patch16_224")


def test_a_timm_model_that_does_not_exist_is_refused_with_near_names():
    pytest.importorskip("timm")
    with pytest.raises(ConfigError, match="no model 'resnet50x'; near: resnet50x"):
        build("timm/resnet50x")


@pytest.mark.parametrize("name", ["resnet18", "timm/tf_efficientnet_lite0"])
def test_frozen_norm_computes_what_batch_norm_computes_in_evaluation(name):
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    normal, frozen = build(name, norm="normal"), build(name, norm="frozen")
    with torch.no_grad():
        for module in normal.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    frozen.load_state_dict(normal.state_dict(), strict=False)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in frozen.modules())
    images = torch.rand(1, 3, 64, 64)
    expected, got = normal.eval()(images), frozen.train()(images)
    for stage, x in expected.items():
        torch.testing.assert_close(got[stage], x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["efficientnet_b0", "timm/tf_efficientnet_lite0"])
def test_depthwise_convolutions_train_in_float32_under_autocast_on_a_cpu(name):
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    backbone = build(name)
    kinds = {"depthwise": set(), "other": set()}

    def note_type(module, inputs, output):
        kinds["depthwise" if module.groups > 1 else "other"].add(output.dtype)

    for module in backbone.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(note_type)
    with torch.autocast("cpu", torch.bfloat16):
        backbone(torch.rand(2, 3, 64, 64))
    assert kinds == {"depthwise": {torch.float32}, "other": {torch.bfloat16}}


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "swin_t", "convnext_tiny"])
def test_frozen_stages_are_those_that_the_first_maps_depend_on(name):
    backbone = build(name, frozen_stages=2)
    images = torch.rand(1, 3, 64, 64)
    maps = backbone.eval()(images)
    assert not maps["c3"].requires_grad or name == "swin_t"  # Swin's own norms still train
    assert maps["c4"].requires_grad
    trained = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    assert 0 < len(trained) < len(list(backbone.parameters()))


def test_batch_norms_of_frozen_stages_are_frozen_with_them():
    backbone = build(norm="normal", frozen_stages=1)
    assert isinstance(backbone.get_submodule("bn1"), FrozenBatchNorm2d)
    assert isinstance(backbone.get_submodule("layer1.0.bn1"), FrozenBatchNorm2d)
    assert isinstance(backbone.get_submodule("layer2.0.bn1"), torch.nn.BatchNorm2d)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_local_weights_are_loaded_and_every_other_key_is_told(tmp_path, caplog, suffix):
    tensors = torchvision.models.resnet18().state_dict()
    tensors["layer9.weight"] = torch.zeros(1)
    del tensors["layer2.0.conv1.weight"]
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": {f"module.{k}": v for k, v in tensors.items()}}, path)
    else:
        save_file(tensors, path)
    backbone = build(weights=path)
    assert torch.equal(backbone.get_parameter("conv1.weight"), tensors["conv1.weight"])
    assert "1 keys missing: layer2.0.conv1.weight" in caplog.text
    assert "1 keys not used: layer9.weight" in caplog.text
    assert "fc." not in caplog.text  # the classifier is left out on purpose


def test_local_weights_of_a_timm_model_are_loaded(tmp_path):
    timm = pytest.importorskip("timm")
    tensors = timm.create_model("tf_efficientnet_lite0").state_dict()
    path = tmp_path / "weights.safetensors"
    save_file(tensors, path)
    backbone = build("timm/tf_efficientnet_lite0", weights=path)
    assert torch.equal(
        backbone.get_parameter("network.conv_stem.weight"), tensors["conv_stem.weight"]
    )


def test_weights_of_another_model_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(torchvision.models.resnet50().state_dict(), path)
    with pytest.raises(
        CheckpointError, match=r"made for another model, \d+ tensors differ: layer1\.0"
    ):
        build(weights=path)
    torch.save({"something": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="no key fits; it has something"):
        build(weights=path)


def test_where_a_checkpoint_brings_the_weights_none_are_loaded(tmp_path):
    build(weights=tmp_path / "gone.pth", load_weights=False)
    with pytest.raises(CheckpointError, match=r"gone\.pth: cannot read: No such file"):
        build(weights=tmp_path / "gone.pth")


def test_a_failed_download_says_what_to_do(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", refuse)
    with pytest.raises(CheckpointError, match=r"cannot download .* set model\.backbone\.weights"):
        build(weights="imagenet")


def test_a_failed_download_of_timm_s_says_what_to_do(monkeypatch):
    import timm

    create = timm.create_model

    def refuse(*arguments, pretrained=False, **keywords):
        if pretrained:
            raise FileNotFoundError("the hub does not answer\nRetrying")
        return create(*arguments, **keywords)

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(
        CheckpointError, match=r"timm/test_resnet .*answer; .* model\.backbone\.weights"
    ):
        build(name="timm/test_resnet", weights="imagenet")


def test_frozen_norm_without_weights_is_warned_of(caplog):
    build(weights="none", norm="frozen")
    assert "normalizes nothing" in caplog.text
