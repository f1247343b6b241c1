"""Image -> C2..C5: classifiers of torchvision and timm, cut at the ends of their four stages.

Weights come from the library's own download, from a local file, or not at all. The state dict's
names stay the classifier's own, so that published weights fit.
"""

import importlib.util
import logging
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import ResNet
from torchvision.models.feature_extraction import create_feature_extractor

from dyhead_det.checkpoints.state_dicts import load_into
from dyhead_det.checkpoints.weight_files import read_state_dict
from dyhead_det.config.schema import BackboneConfig
from dyhead_det.errors import CheckpointError, ConfigError
from dyhead_det.models.backbones.swin import SWIN_SHAPES, SwinBackbone, SwinStages
from dyhead_det.models.backbones.sync_norm import convert_sync_batchnorm
from dyhead_det.ops.frozen_norm import OnePassFrozenBatchNorm2d

logger = logging.getLogger(__name__)

STAGE_STRIDES = {"c2": 4, "c3": 8, "c4": 16, "c5": 32}

# Per family of torchvision's classifiers: the modules that end the stages of stride 4, 8, 16 and
# 32, and the prefixes of the weights that only classification needs.
_STAGE_ENDS = {
    "resn": (("layer1", "layer2", "layer3", "layer4"), ("fc.",)),
    "mobi": (("features.3", "features.6", "features.12", "features.16"), ("classifier.",)),
    "effi": (
        ("features.2", "features.3", "features.5", "features.7"),
        ("features.8.", "classifier."),
    ),
    "conv": (("features.1", "features.3", "features.5", "features.7"), ("classifier.",)),
    "swin": ((), ("norm.", "head.")),  # cut in `swin.py`
}


def build_backbone(
    config: BackboneConfig, *, stage_names: tuple[str, ...], load_weights: bool
) -> nn.Module:
    """Build a module that maps images (B, 3, H, W) to a dict of C2..C5, each (B, C_l, H_l, W_l).

    Args:
        config: Which classifier, its weights, what trains, what its batch norms do.
        stage_names: The stages that will be used, of c2..c5.
        load_weights: False where a checkpoint brings the weights.

    Raises:
        ConfigError: If the classifier does not exist or does not have strides 4, 8, 16 and 32.
        CheckpointError: If the weights cannot be had or do not fit.
    """
    if load_weights and config.weights == "none" and config.norm == "frozen":
        logger.warning("model.backbone: norm `frozen` with weights `none` normalises nothing")
    if config.name.startswith("timm/"):
        backbone = _build_timm_backbone(config, load_weights=load_weights)
    else:
        backbone = _build_torchvision_backbone(
            config, stage_names=stage_names, load_weights=load_weights
        )
    _freeze_stages(backbone, config.frozen_stages)
    _freeze_batch_norms(backbone, all_of_them=config.norm == "frozen")
    if config.norm == "sync":
        convert_sync_batchnorm(backbone)
    return backbone


def measure_channels(backbone: nn.Module) -> dict[str, int]:
    """Return the number of channels of every stage.

    Raises:
        ConfigError: If the strides are not 4, 8, 16 and 32.
    """
    with torch.no_grad():
        maps = _probe(backbone)
    strides = {name: 64 // x.shape[-1] for name, x in maps.items()}
    if strides != STAGE_STRIDES:
        msg = f"model.backbone.name: needs maps of strides {STAGE_STRIDES}, this one has {strides}"
        raise ConfigError(msg)
    return {name: x.shape[1] for name, x in maps.items()}


def _build_torchvision_backbone(
    config: BackboneConfig, *, stage_names: tuple[str, ...], load_weights: bool
) -> nn.Module:
    ends, classifier_only = _STAGE_ENDS[config.name[:4]]
    if config.name in SWIN_SHAPES:
        extractor: nn.Module = SwinStages(SWIN_SHAPES[config.name])
    else:
        classifier = torchvision.models.get_model(config.name, weights=None)
        if config.stride_in_1x1 and isinstance(classifier, ResNet):
            _move_stride_to_1x1(classifier)
        nodes = dict(zip(ends, STAGE_STRIDES, strict=True))
        extractor = create_feature_extractor(classifier, nodes)
    if load_weights and config.weights != "none":
        if config.weights == "imagenet":
            tensors, source = _download_imagenet_weights(config.name), f"{config.name} (imagenet)"
        else:
            tensors, source = read_state_dict(Path(config.weights)), config.weights
        load_into(extractor, tensors, source=source, ignored=classifier_only)
    if isinstance(extractor, SwinStages):
        return SwinBackbone(extractor, shape=SWIN_SHAPES[config.name], stage_names=stage_names)
    return extractor


def _move_stride_to_1x1(resnet: ResNet) -> None:
    """Let a bottleneck's first convolution shrink the map, in place, as the first ResNets did.

    Torchvision's shrink it with the 3x3 one. Weights fit both ways and mean another function.
    """
    for stage in (resnet.layer2, resnet.layer3, resnet.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)


class TimmBackbone(nn.Module):
    """The four stages of a timm `features_only` model."""

    def __init__(self, network: nn.Module, *, is_channels_last: bool) -> None:
        super().__init__()
        self.network = network
        self.is_channels_last = is_channels_last

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return C2..C5 as (B, C_l, H_l, W_l)."""
        maps = self.network(images)
        if self.is_channels_last:
            maps = [x.permute(0, 3, 1, 2).contiguous() for x in maps]
        return dict(zip(STAGE_STRIDES, maps, strict=True))


def _build_timm_backbone(config: BackboneConfig, *, load_weights: bool) -> nn.Module:
    if importlib.util.find_spec("timm") is None:
        msg = f"model.backbone.name: {config.name} needs timm: pip install 'dyhead-det[timm]'"
        raise ConfigError(msg)
    import timm  # noqa: PLC0415 - an extra

    name = config.name.removeprefix("timm/")
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('.')[0][:12]}*")[:5]
        msg = f"model.backbone.name: timm has no model {name!r}; near: {', '.join(near) or 'none'}"
        raise ConfigError(msg)
    with torch.device("meta"):
        info = _create_timm_network(name, features_only=True).feature_info
    reductions = info.reduction()
    if not set(STAGE_STRIDES.values()) <= set(reductions):
        msg = f"model.backbone.name: needs maps of strides 4, 8, 16 and 32, {name} has {reductions}"
        raise ConfigError(msg)
    indices = tuple(reductions.index(stride) for stride in STAGE_STRIDES.values())
    weights = _timm_weights(config, name, load_weights=load_weights)
    out_indices = tuple(info.out_indices[index] for index in indices)
    try:
        network = _create_timm_network(name, features_only=True, out_indices=out_indices, **weights)
    except OSError as error:  # those of the library that downloads for timm are such, too
        raise CheckpointError(_cannot_download(f"timm/{name}", "timm's hub", error)) from error
    with torch.no_grad():
        first = network.eval()(torch.zeros(1, 3, 64, 64))[0]
    return TimmBackbone(
        network.train(), is_channels_last=first.shape[1] != info.channels()[indices[0]]
    )


def _create_timm_network(name: str, **keywords: object) -> Any:  # noqa: ANN401 - timm is not typed
    """Create a timm model that takes images of any size, where it would insist on one."""
    import timm  # noqa: PLC0415 - an extra

    # It warns of the classifier, which is left out on purpose.
    logging.getLogger("timm.models._builder").setLevel(logging.ERROR)
    try:
        return timm.create_model(name, strict_img_size=False, **keywords)
    except TypeError:  # a convolutional network: any size is right, and the keyword unknown
        return timm.create_model(name, **keywords)


def _timm_weights(config: BackboneConfig, name: str, *, load_weights: bool) -> dict[str, object]:
    """Return the keywords that make timm load the weights; check a local file against the model.

    timm drops what does not fit without a word, so the keys are compared here.
    """
    import timm  # noqa: PLC0415 - an extra

    if not load_weights or config.weights == "none":
        return {"pretrained": False}
    if config.weights == "imagenet":
        return {"pretrained": True}
    with torch.device("meta"):
        classifier = timm.create_model(name)
    classifier.to_empty(device="cpu")
    load_into(classifier, read_state_dict(Path(config.weights)), source=config.weights)
    return {"pretrained": True, "pretrained_cfg_overlay": {"file": config.weights}}


def _download_imagenet_weights(name: str) -> dict[str, Tensor]:
    """Return torchvision's first ImageNet weights of a classifier, as its own detectors use."""
    if name in SWIN_SHAPES and name not in torchvision.models.list_models():
        msg = (
            f"torchvision has no ImageNet weights of {name}; set model.backbone.weights to a file "
            "with torchvision's names, or to `none`"
        )
        raise CheckpointError(msg)
    weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    try:
        tensors: dict[str, Tensor] = weights.get_state_dict(progress=True, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        raise CheckpointError(_cannot_download(name, weights.url, error)) from error
    return tensors


def _cannot_download(name: str, source: str, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0]
    return (
        f"cannot download the ImageNet weights of {name} from {source}: {reason}; fetch the file "
        "elsewhere and set model.backbone.weights to its path, or to `none`"
    )


def _freeze_batch_norms(backbone: nn.Module, *, all_of_them: bool) -> None:
    """Turn batch norms, all or those of frozen stages, into fixed scales and shifts, in place."""
    for name, module in list(backbone.named_modules()):
        if not isinstance(module, nn.BatchNorm2d):
            continue
        if not all_of_them and module.weight.requires_grad:
            continue
        if type(module) is nn.BatchNorm2d:
            frozen: nn.Module = OnePassFrozenBatchNorm2d(module.num_features, eps=module.eps)
            frozen.load_state_dict(module.state_dict())
        else:  # timm's batch norm with an activation in it
            from timm.layers import freeze_batch_norm_2d  # noqa: PLC0415 - an extra

            frozen = freeze_batch_norm_2d(module)
        parent, _, child = name.rpartition(".")
        setattr(backbone.get_submodule(parent), child, frozen)


def _freeze_stages(backbone: nn.Module, num_frozen: int) -> None:
    """Stop the training of the first stages; the stem counts with the first.

    A parameter belongs to the first stage whose map depends on it, whatever the family.
    """
    if num_frozen == 0:
        return
    parameters = list(backbone.parameters())
    last_frozen = list(_probe(backbone).values())[num_frozen - 1]
    gradients = torch.autograd.grad(last_frozen.sum(), parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is None)


def _probe(backbone: nn.Module) -> dict[str, Tensor]:
    """Return the maps of a small black image, leaving statistics and mode as they were."""
    was_training = backbone.training
    maps: dict[str, Tensor] = backbone.eval()(torch.zeros(1, 3, 64, 64))
    backbone.train(was_training)
    return maps
