"""Image -> C2..C5: models of timm, an extra, cut at the ends of their four stages."""

import importlib.util
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dyhead_det.checkpoints.state_dicts import load_into
from dyhead_det.checkpoints.weight_files import read_state_dict
from dyhead_det.config.schema import BackboneConfig
from dyhead_det.errors import CheckpointError, ConfigError
from dyhead_det.models.backbones.families import STAGE_STRIDES


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


def build_timm_backbone(config: BackboneConfig, *, load_weights: bool) -> nn.Module:
    """Build the backbone of a name ``timm/<model>``; arguments and errors as `build_backbone`."""
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
        raise CheckpointError(cannot_download(f"timm/{name}", "timm's hub", error)) from error
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
    except TypeError:  # a convolutional model: any size is right, and the keyword unknown
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


def cannot_download(name: str, source: str, error: Exception) -> str:
    """Return the message for weights of `name` that `source` does not give."""
    reason = str(error).strip().splitlines()[0]
    return (
        f"cannot download the ImageNet weights of {name} from {source}: {reason}; fetch the file "
        "elsewhere and set model.backbone.weights to its path, or to `none`"
    )
