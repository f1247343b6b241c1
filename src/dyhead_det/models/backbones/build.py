"""Image -> C2..C5: classifiers of torchvision and timm, cut at the ends of their four stages.

Weights come from the library's own download, from a local file, or not at all. The state dict's
names stay the classifier's own, so that published weights fit.
"""

import logging
from pathlib import Path
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
from dyhead_det.models.backbones.depthwise_conv import train_depthwise_in_float32
from dyhead_det.models.backbones.families import BACKBONES, STAGE_STRIDES
from dyhead_det.models.backbones.probe import probe
from dyhead_det.models.backbones.swin import SWIN_SHAPES, SwinBackbone, SwinStages
from dyhead_det.models.backbones.sync_norm import convert_sync_batchnorm
from dyhead_det.models.backbones.timm_backbone import build_timm_backbone, cannot_download
from dyhead_det.ops.frozen_norm import OnePassFrozenBatchNorm2d, OnePassFrozenBatchNormAct2d

logger = logging.getLogger(__name__)

# Pixels of the image on which stages are tried: the coarsest has two.
_PROBE_SIDE = 64


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
        logger.warning("model.backbone: norm `frozen` with weights `none` normalizes nothing")
    if config.name.startswith("timm/"):
        backbone = build_timm_backbone(config, load_weights=load_weights)
    else:
        backbone = _build_torchvision_backbone(
            config, stage_names=stage_names, load_weights=load_weights
        )
    _freeze_stages(backbone, config.frozen_stages)
    _freeze_batch_norms(backbone, all_of_them=config.norm == "frozen")
    if config.norm == "sync":
        convert_sync_batchnorm(backbone)
    train_depthwise_in_float32(backbone)
    return backbone


def measure_channels(backbone: nn.Module) -> dict[str, int]:
    """Return the number of channels of every stage.

    Raises:
        ConfigError: If the strides are not 4, 8, 16 and 32.
    """
    with torch.no_grad():
        maps = probe(backbone, _PROBE_SIDE)
    strides = {name: _PROBE_SIDE // x.shape[-1] for name, x in maps.items()}
    if strides != STAGE_STRIDES:
        msg = f"model.backbone.name: needs maps of strides {STAGE_STRIDES}, this one has {strides}"
        raise ConfigError(msg)
    return {name: x.shape[1] for name, x in maps.items()}


def _build_torchvision_backbone(
    config: BackboneConfig, *, stage_names: tuple[str, ...], load_weights: bool
) -> nn.Module:
    family = BACKBONES[config.name]
    if config.name in SWIN_SHAPES:
        extractor: nn.Module = SwinStages(SWIN_SHAPES[config.name])
    else:
        classifier = torchvision.models.get_model(config.name, weights=None)
        if config.stride_in_1x1 and family.has_bottlenecks:
            _move_stride_to_1x1(classifier)
        nodes = dict(zip(family.stage_ends, STAGE_STRIDES, strict=True))
        extractor = create_feature_extractor(classifier, nodes)
    if load_weights and config.weights != "none":
        if config.weights == "imagenet":
            tensors, source = _download_imagenet_weights(config.name), f"{config.name} (imagenet)"
        else:
            tensors, source = read_state_dict(Path(config.weights)), config.weights
        load_into(extractor, tensors, source=source, ignored=family.classifier_prefixes)
    if isinstance(extractor, SwinStages):
        return SwinBackbone(extractor, shape=SWIN_SHAPES[config.name], stage_names=stage_names)
    return extractor


def _move_stride_to_1x1(resnet: ResNet) -> None:
    """Let a bottleneck's first convolution shrink the map, in place, as the first ResNets did.

    Torchvision's shrink it with the 3x3 one. Weights fit both ways and mean another function.
    """
    for stage in (resnet.layer2, resnet.layer3, resnet.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)


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
        raise CheckpointError(cannot_download(name, weights.url, error)) from error
    return tensors


def _freeze_batch_norms(backbone: nn.Module, *, all_of_them: bool) -> None:
    """Turn batch norms, all or those of frozen stages, into fixed scales and shifts, in place."""
    for name, module in list(backbone.named_modules()):
        if not isinstance(module, nn.BatchNorm2d):
            continue
        if not all_of_them and module.weight.requires_grad:
            continue
        if type(module) is nn.BatchNorm2d:
            frozen = OnePassFrozenBatchNorm2d(module.num_features, eps=module.eps)
        else:  # timm's batch norm with an activation in it
            frozen = OnePassFrozenBatchNormAct2d(
                module.num_features,
                eps=module.eps,
                drop=module.get_submodule("drop"),
                act=module.get_submodule("act"),
            )
        frozen.load_state_dict(module.state_dict())
        parent, _, child = name.rpartition(".")
        setattr(backbone.get_submodule(parent), child, frozen)


def _freeze_stages(backbone: nn.Module, num_frozen: int) -> None:
    """Stop the training of the first stages; the stem counts with the first.

    A parameter belongs to the first stage whose map depends on it, whatever the family.
    """
    if num_frozen == 0:
        return
    parameters = list(backbone.parameters())
    last_frozen = list(probe(backbone, _PROBE_SIDE).values())[num_frozen - 1]
    gradients = torch.autograd.grad(last_frozen.sum(), parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is None)
