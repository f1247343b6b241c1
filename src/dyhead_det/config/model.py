"""The sections of the model: backbone, pyramid, DyHead, image size."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from dyhead_det.config.detectors import DetectorConfig
from dyhead_det.config.section import (
    PathText,
    Positive,
    Section,
    Triple,
    did_you_mean,
    setting,
)

# Whose conventions a detector follows, "none" torchvision's.
Compat = Literal["none", "detectron2", "mmdet"]

BACKBONE_NAMES = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_64x4d",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b2",
    "efficientnet_b3",
    "convnext_tiny",
    "swin_t",
    "swin_s",
    "swin_b",
    "swin_b_w12",
    "swin_l_w12",
)

BOTTLENECK_BACKBONE_NAMES = (
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_64x4d",
)

Edge = Annotated[int, Field(ge=1, le=16384)]


class InputConfig(Section):
    """How the detector resizes and normalizes, once, in training and at test time."""

    short_edge: Edge = setting(
        800, "Images are resized so that their shorter edge has this length.", unit="px"
    )
    long_edge: Edge = setting(
        1333, "Images whose longer edge would become longer are made smaller.", unit="px"
    )
    multi_scale: Annotated[tuple[Edge, ...], Field(max_length=100)] = setting(
        (), "Shorter edges to draw from in training; without any it is `short_edge`.", unit="px"
    )
    mean: Triple = setting(
        (0.485, 0.456, 0.406), "What is taken off red, green and blue.", unit="share of white"
    )
    std: tuple[Positive, Positive, Positive] = setting(
        (0.229, 0.224, 0.225), "What they are divided by then.", unit="share of white"
    )
    resize: Literal["auto", "cv2"] = setting(
        "auto",
        "How pixels are interpolated: `auto` is torchvision's way, or Pillow's under `compat`; "
        "`cv2` is for one model of mmdetection.",
    )
    pad_to_multiple: Annotated[int, Field(ge=1, le=1024)] | None = setting(
        None,
        "Pad the images of a batch to multiples of this; null is the coarsest level's stride with "
        "DyHead, else 32.",
        unit="px",
    )

    @model_validator(mode="after")
    def _test_size_is_a_training_size(self) -> "InputConfig":
        if self.multi_scale and self.short_edge not in self.multi_scale:
            msg = f"multi_scale: must hold short_edge {self.short_edge}, the size at test time"
            raise ValueError(msg)
        return self


class BackboneConfig(Section):
    """The image classifier whose stages C2..C5 feed the pyramid."""

    name: str = setting(
        "resnet50",
        f"A classifier of torchvision ({', '.join(BACKBONE_NAMES)}), or one of timm by "
        "`timm/<model>`.",
    )
    weights: PathText = setting(
        "imagenet", "What it starts from: `imagenet` (downloaded), `none`, or the path of a file."
    )
    frozen_stages: Annotated[int, Field(ge=0, le=4)] = setting(
        0,
        "How many stages, from the first one, never train; with one or more the stem too.",
        unit="stages",
    )
    norm: Literal["frozen", "normal", "sync"] = setting(
        "frozen",
        "What its batch norms do: keep the pretrained statistics (`frozen`), take those of the "
        "images of one process (`normal`) or of all processes that train together (`sync`).",
    )
    stride_in_1x1: bool = setting(
        False,
        "Bottlenecks shrink the map with their first convolution, as in the first ResNets and the "
        "weights made from them; torchvision's own weights need false.",
    )

    @field_validator("name")
    @classmethod
    def _known_name(cls, name: str) -> str:
        if name in BACKBONE_NAMES or re.fullmatch(r"timm/[\w.-]{1,200}", name, re.ASCII):
            return name
        raise ValueError(
            f"is unknown; {did_you_mean(name, BACKBONE_NAMES)}one of {', '.join(BACKBONE_NAMES)}, "
            "timm/<model>"
        )

    @model_validator(mode="after")
    def _stride_has_a_place(self) -> "BackboneConfig":
        if self.stride_in_1x1 and self.name not in BOTTLENECK_BACKBONE_NAMES:
            msg = f"stride_in_1x1: only for {', '.join(BOTTLENECK_BACKBONE_NAMES)}, not {self.name}"
            raise ValueError(msg)
        return self


class DyHeadConfig(Section):
    """The dynamic head on the pyramid; `dyhead: null` gives the plain torchvision detector."""

    scheme: Literal["levels", "stacked"] = setting(
        "levels",
        "`levels` is the authors' code: every level with its neighbors. `stacked` is the paper's "
        "text: all levels as one tensor.",
    )
    num_blocks: Annotated[int, Field(ge=1, le=64)] = setting(
        6, "Blocks one after the other.", unit="blocks"
    )
    attention: tuple[Literal["scale", "spatial", "task"], ...] = setting(
        ("scale", "spatial", "task"), "Which of the paper's three attentions a block has."
    )
    spatial: Literal["deform", "conv"] = setting(
        "deform", "Deformable convolutions, or plain ones to compare with."
    )
    dynamic_relu: Literal["channel", "shared"] = setting(
        "channel", "The task attention's numbers: of each channel, or one set for all."
    )
    coarse_offsets: Literal["resized", "flattened", "cropped"] = setting(
        "resized",
        "Where the coarser level takes its offsets from: the level's own, resized; or as the "
        "authors' code (`flattened`) and mmdetection (`cropped`) index them.",
    )
    zero_init_offsets: bool = setting(
        True, "Offsets start at zero, so that the first steps are those of plain convolutions."
    )
    residual: bool = setting(
        True, "Add DyHead's result, times a scale learned per channel, to the pyramid."
    )
    residual_scale: Annotated[float, Field(ge=-1e6, le=1e6)] = setting(
        1.0,
        "Where that scale starts. It hardly moves in some hundred steps: 0.01 leaves DyHead off, "
        "which a detector whose weights were trained without it may start from.",
        unit="factor",
    )
    deform_backend: Literal[
        "auto", "torchvision", "gather", "triton", "reference", "grid_sample"
    ] = setting(
        "auto",
        "Who computes deformable convolutions; the results are the same. `triton` needs a GPU; "
        "`auto` takes it where it is right and the fastest.",
    )

    @model_validator(mode="after")
    def _scheme_has_the_options(self) -> "DyHeadConfig":
        if not self.attention or len(set(self.attention)) < len(self.attention):
            msg = (
                f"attention: one or more of scale, spatial, task, none twice, got "
                f"{list(self.attention)}; `dyhead: null` leaves out all"
            )
            raise ValueError(msg)
        if self.scheme == "stacked" and self.coarse_offsets != "resized":
            msg = (
                f"coarse_offsets: {self.coarse_offsets} is a rule of `scheme: levels`; in the "
                "stacked scheme all levels have the same offsets"
            )
            raise ValueError(msg)
        return self


class ModelConfig(Section):
    """Backbone -> pyramid of `channels` -> DyHead -> detector."""

    detector: DetectorConfig = setting(..., "What finds the boxes.")
    backbone: BackboneConfig = setting(BackboneConfig(), "What sees the image.")
    channels: Annotated[int, Field(ge=1, le=4096)] = setting(
        256, "Width of the pyramid and of DyHead; with DyHead a multiple of 16.", unit="channels"
    )
    fpn_norm: Literal["none", "group"] = setting(
        "none",
        "Norm behind each convolution of the FPN: `group` brings its maps to the size of what "
        "DyHead adds (32 groups, one for P6 and P7), `none` is torchvision's.",
    )
    dyhead: DyHeadConfig | None = setting(
        DyHeadConfig(), "The dynamic head; null is the plain detector."
    )
    input: InputConfig = setting(InputConfig(), "The size that images are resized to, and colors.")
    compat: Compat = setting(
        "none",
        "Resize, place anchors, pool and choose boxes as the program whose weights are used.",
    )
    weights: PathText | None = setting(
        None,
        "Start training from this file, a checkpoint of ours or torchvision's COCO detector; or "
        "from published weights by name (`weights list`, fasterrcnn_resnet50_fpn_coco and so on).",
    )

    @model_validator(mode="after")
    def _parts_fit(self) -> "ModelConfig":
        if self.dyhead is not None and self.channels % 16:
            msg = f"channels: must be divisible by 16 for DyHead's group norm, got {self.channels}"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _compat_has_a_model(self) -> "ModelConfig":
        known = {"detectron2": ("fasterrcnn", "retinanet", "atss"), "mmdet": ("atss",)}
        detectors = known.get(self.compat, (self.detector.name,))
        if self.detector.name not in detectors:
            msg = f"compat: `{self.compat}` is for {', '.join(detectors)}, not {self.detector.name}"
            raise ValueError(msg)
        if self.compat == "none" and self.input.resize != "auto":
            msg = "input.resize: `cv2` is for compat `mmdet`; write `auto`"
            raise ValueError(msg)
        return self


def is_weight_name(weights: str) -> bool:
    """Return whether `model.weights` is a name: without folder or suffix, and no file here."""
    path = Path(weights)
    return path.name == weights and not path.suffix and not path.exists()
