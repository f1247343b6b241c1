"""Every backbone by name: where its stages end, and what of its weights only classifies.

The configuration's names are these; a test compares them. A backbone of torchvision is one line
here and one in `config/model.py`; timm's need none.
"""

from dataclasses import dataclass

STAGE_STRIDES = {"c2": 4, "c3": 8, "c4": 16, "c5": 32}


@dataclass(frozen=True, slots=True)
class BackboneFamily:
    """Classifiers of torchvision that are cut at the same modules.

    stage_ends: Modules that end the stages of stride 4, 8, 16 and 32; none where the family has an
        extractor of its own, as Swin in `swin.py`.
    classifier_prefixes: How names of weights begin that only classification needs.
    has_bottlenecks: Blocks of 1x1, 3x3 and 1x1 convolutions, whose stride may move to the first.
    """

    stage_ends: tuple[str, ...]
    classifier_prefixes: tuple[str, ...]
    has_bottlenecks: bool = False


_RESNET_STAGES = ("layer1", "layer2", "layer3", "layer4")
_BASIC_RESNET = BackboneFamily(_RESNET_STAGES, ("fc.",))
_RESNET = BackboneFamily(_RESNET_STAGES, ("fc.",), has_bottlenecks=True)
_MOBILENET_V3 = BackboneFamily(
    ("features.3", "features.6", "features.12", "features.16"), ("classifier.",)
)
_EFFICIENTNET = BackboneFamily(
    ("features.2", "features.3", "features.5", "features.7"), ("features.8.", "classifier.")
)
_CONVNEXT = BackboneFamily(
    ("features.1", "features.3", "features.5", "features.7"), ("classifier.",)
)
_SWIN = BackboneFamily((), ("norm.", "head."))

BACKBONES = {
    "resnet18": _BASIC_RESNET,
    "resnet34": _BASIC_RESNET,
    "resnet50": _RESNET,
    "resnet101": _RESNET,
    "resnet152": _RESNET,
    "resnext50_32x4d": _RESNET,
    "resnext101_64x4d": _RESNET,
    "mobilenet_v3_large": _MOBILENET_V3,
    "efficientnet_b0": _EFFICIENTNET,
    "efficientnet_b1": _EFFICIENTNET,
    "efficientnet_b2": _EFFICIENTNET,
    "efficientnet_b3": _EFFICIENTNET,
    "convnext_tiny": _CONVNEXT,
    "swin_t": _SWIN,
    "swin_s": _SWIN,
    "swin_b": _SWIN,
    "swin_b_w12": _SWIN,
    "swin_l_w12": _SWIN,
}
