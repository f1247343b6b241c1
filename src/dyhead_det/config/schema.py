"""One run as frozen, typed sections; every default of the project stands here.

The sections follow the YAML file: seed, data, model, optim, schedule, train, eval,
runtime.
"""

import difflib
import json
import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

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

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
NaturalNumber = Annotated[int, Field(ge=0)]
Triple = tuple[float, float, float]


AnySection = TypeVar("AnySection", bound="Section")


class Section(BaseModel):
    """A frozen section: unknown keys are errors and nothing is converted silently."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class SplitConfig(Section):
    """One part of a data set, as paths relative to `data.root`."""

    annotations: str
    images: str


class DatasetConfig(SplitConfig):
    """A data set by itself: what `eval --data` reads."""

    root: str = "."


class AugmentConfig(Section):
    """What happens to training images besides the detector's own resizing (`model.input`)."""

    horizontal_flip: Fraction = 0.5
    vertical_flip: Fraction = 0.0
    photometric: bool = False
    large_scale_jitter: tuple[Positive, Positive] | None = None


class UniformSampling(Section):
    """Every image once an epoch."""

    name: Literal["uniform"]


class RepeatFactorSampling(Section):
    """Images of classes in less than the share `threshold` of the images come more often."""

    name: Literal["repeat_factor"]
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.001


class ClassBalancedSampling(Section):
    """All classes come equally often, whatever the number of their images."""

    name: Literal["class_balanced"]


SamplingConfig = Annotated[
    UniformSampling | RepeatFactorSampling | ClassBalancedSampling, Field(discriminator="name")
]


class DataConfig(Section):
    """Where the data lie and how they are read.

    `prefetch_factor`: batches that each worker process holds ready. `persistent_workers`: they live
    on from epoch to epoch. `pin_memory`: only has an effect with CUDA. `reduce_jpegs`: in training,
    decode JPEG files at 1/2, 1/4 or 1/8 of their size where that is not smaller than `model.input`.
    `group_by_aspect_ratio`: batches of wide images and of others, which need less padding.
    `sampling`: how often an image comes an epoch.
    """

    root: str = "."
    train: SplitConfig
    val: SplitConfig | None = None
    empty_images: Literal["keep", "drop"] = "keep"
    broken_images: Literal["error", "skip"] = "error"
    num_workers: NaturalNumber = 2
    prefetch_factor: Count = 2
    persistent_workers: bool = True
    pin_memory: bool = True
    reduce_jpegs: bool = True
    group_by_aspect_ratio: bool = False
    sampling: SamplingConfig = UniformSampling(name="uniform")
    augment: AugmentConfig = AugmentConfig()


class InputConfig(Section):
    """How the detector resizes and normalises, once, in training and at test time.

    `pad_to_multiple`: null pads to the coarsest level's stride with DyHead, else to 32. `resize`:
    `auto` is torchvision's, or Pillow's under `model.compat`; `cv2` is for one mmdetection model.
    """

    short_edge: Count = 800
    long_edge: Count = 1333
    multi_scale: tuple[Count, ...] = ()
    mean: Triple = (0.485, 0.456, 0.406)
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)
    resize: Literal["auto", "cv2"] = "auto"
    pad_to_multiple: Count | None = None

    @model_validator(mode="after")
    def _test_size_is_a_training_size(self) -> "InputConfig":
        if self.multi_scale and self.short_edge not in self.multi_scale:
            msg = f"multi_scale: must hold short_edge {self.short_edge}, the size at test time"
            raise ValueError(msg)
        return self


class BackboneConfig(Section):
    """The image classifier whose stages C2..C5 feed the pyramid.

    `norm`: what its batch norms do: keep the pretrained statistics (`frozen`), take those of the
    images of one process (`normal`) or of all processes that train together (`sync`).
    `stride_in_1x1`: bottlenecks shrink the map with their first convolution, as in the first
    ResNets and the weights made from them; torchvision's own weights need false.
    """

    name: str = "resnet50"
    weights: str = "imagenet"
    frozen_stages: Annotated[int, Field(ge=0, le=4)] = 0
    norm: Literal["frozen", "normal", "sync"] = "frozen"
    stride_in_1x1: bool = False

    @field_validator("name")
    @classmethod
    def _known_name(cls, name: str) -> str:
        if name in BACKBONE_NAMES or re.fullmatch(r"timm/[\w.-]+", name, re.ASCII):
            return name
        msg = (
            f"{did_you_mean(name, BACKBONE_NAMES)}one of {', '.join(BACKBONE_NAMES)}, timm/<model>"
        )
        raise ValueError(msg)

    @model_validator(mode="after")
    def _stride_has_a_place(self) -> "BackboneConfig":
        if self.stride_in_1x1 and self.name not in BOTTLENECK_BACKBONE_NAMES:
            msg = f"stride_in_1x1: only for {', '.join(BOTTLENECK_BACKBONE_NAMES)}, not {self.name}"
            raise ValueError(msg)
        return self


class DyHeadConfig(Section):
    """The dynamic head on the pyramid; `dyhead: null` gives the plain torchvision detector."""

    scheme: Literal["levels", "stacked"] = "levels"
    num_blocks: Count = 6
    attention: tuple[Literal["scale", "spatial", "task"], ...] = ("scale", "spatial", "task")
    spatial: Literal["deform", "conv"] = "deform"
    dynamic_relu: Literal["channel", "shared"] = "channel"
    coarse_offsets: Literal["resized", "flattened", "cropped"] = "resized"
    zero_init_offsets: bool = True
    residual: bool = True
    residual_scale: float = 0.01
    deform_backend: Literal["auto", "torchvision", "gather", "reference"] = "auto"

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


class FasterRCNNConfig(Section):
    """Torchvision's FasterRCNN; the keys are its keywords, the defaults its defaults."""

    name: Literal["fasterrcnn"]
    anchor_sizes: tuple[tuple[Positive, ...], ...] = ((32,), (64,), (128,), (256,), (512,))
    anchor_ratios: tuple[Positive, ...] = (0.5, 1.0, 2.0)
    rpn_pre_nms_top_n_train: Count = 2000
    rpn_pre_nms_top_n_test: Count = 1000
    rpn_post_nms_top_n_train: Count = 2000
    rpn_post_nms_top_n_test: Count = 1000
    rpn_nms_thresh: Fraction = 0.7
    rpn_fg_iou_thresh: Fraction = 0.7
    rpn_bg_iou_thresh: Fraction = 0.3
    rpn_batch_size_per_image: Count = 256
    rpn_positive_fraction: Fraction = 0.5
    rpn_score_thresh: Fraction = 0.0
    box_score_thresh: Fraction = 0.05
    box_nms_thresh: Fraction = 0.5
    box_detections_per_img: Count = 100
    box_fg_iou_thresh: Fraction = 0.5
    box_bg_iou_thresh: Fraction = 0.5
    box_batch_size_per_image: Count = 512
    box_positive_fraction: Fraction = 0.25
    box_head_channels: Count = 1024

    @property
    def detections_per_img(self) -> int:
        """The most detections of an image, by the name that the other detectors use."""
        return self.box_detections_per_img


class RetinaNetConfig(Section):
    """Torchvision's RetinaNet; the keys are its keywords, the defaults its defaults."""

    name: Literal["retinanet"]
    anchor_sizes: tuple[tuple[Positive, ...], ...] = (
        (32, 40, 50),
        (64, 80, 101),
        (128, 161, 203),
        (256, 322, 406),
        (512, 645, 812),
    )
    anchor_ratios: tuple[Positive, ...] = (0.5, 1.0, 2.0)
    score_thresh: Fraction = 0.05
    nms_thresh: Fraction = 0.5
    detections_per_img: Count = 300
    fg_iou_thresh: Fraction = 0.5
    bg_iou_thresh: Fraction = 0.4
    topk_candidates: Count = 1000


class FCOSConfig(Section):
    """Torchvision's FCOS; the keys are its keywords, the defaults its defaults."""

    name: Literal["fcos"]
    center_sampling_radius: Positive = 1.5
    score_thresh: Fraction = 0.2
    nms_thresh: Fraction = 0.6
    detections_per_img: Count = 100
    topk_candidates: Count = 1000


class ATSSConfig(Section):
    """ATSS with the constants of the official DyHead models; without DyHead take 4 tower convs."""

    name: Literal["atss"]
    num_tower_convs: Annotated[int, Field(ge=0, le=4)] = 0
    prediction_kernel: Literal[1, 3] = 1
    anchor_offset: Fraction = 0.5
    num_candidates: Count = 9
    score_thresh: Fraction = 0.05
    nms_thresh: Fraction = 0.6
    detections_per_img: Count = 100
    topk_candidates: Count = 1000
    topk_by: Literal["product", "class_score"] = "product"
    clip: Literal["before_nms", "after"] = "before_nms"


DetectorConfig = Annotated[
    FasterRCNNConfig | RetinaNetConfig | FCOSConfig | ATSSConfig, Field(discriminator="name")
]


class ModelConfig(Section):
    """Backbone -> pyramid of `channels` -> DyHead -> detector.

    `compat`: resize, place anchors, pool and choose boxes as the program whose weights are used.
    `weights`: start training from this checkpoint of ours or torchvision's COCO detector.
    """

    detector: DetectorConfig
    backbone: BackboneConfig = BackboneConfig()
    channels: Count = 256
    dyhead: DyHeadConfig | None = DyHeadConfig()
    input: InputConfig = InputConfig()
    compat: Literal["none", "detectron2", "mmdet"] = "none"
    weights: str | None = None

    @model_validator(mode="after")
    def _parts_fit(self) -> "ModelConfig":
        if self.dyhead is not None and self.channels % 16:
            msg = f"channels: must be divisible by 16 for DyHead's group norm, got {self.channels}"
            raise ValueError(msg)
        if isinstance(self.detector, FasterRCNNConfig | RetinaNetConfig):
            num_levels = len(self.detector.anchor_sizes)
            if num_levels != 5:
                msg = f"detector.anchor_sizes: one list per level, 5 levels, got {num_levels}"
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


class AutoScaleLRConfig(Section):
    """Multiply `lr` by `train.batch_size` / `base_batch_size`."""

    base_batch_size: Count = 16


class OptimConfig(Section):
    """Optimizer and its parameter groups.

    `auto_scale_lr`: take `lr` for that of another batch size; null takes it as it is.
    `offset_lr_factor`: for the convolutions that choose DyHead's offsets and masks; AdamW moves all
    of their weights by the rate in every step, and an offset is the sum of 9 x `channels` of them.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: Positive = 0.02
    auto_scale_lr: AutoScaleLRConfig | None = None
    momentum: Fraction = 0.9
    weight_decay: NonNegative = 1e-4
    decay_norms_and_biases: bool = True
    decay_offsets_and_scale: bool = True
    backbone_lr_factor: NonNegative = 1.0
    offset_lr_factor: NonNegative = 1.0
    clip_norm: Positive | None = None


class ScheduleConfig(Section):
    """Learning rate over the run: linear warm-up in steps, then steps down or a cosine."""

    name: Literal["multi_step", "cosine"] = "multi_step"
    warmup_steps: NaturalNumber = 1000
    warmup_factor: Fraction = 0.001
    milestones: tuple[Fraction, ...] = (2 / 3, 8 / 9)
    gamma: Fraction = 0.1
    final_lr_factor: Fraction = 0.0


class EMAConfig(Section):
    """The moving average of the weights, which is evaluated and kept in place of the weights.

    `decay`: the share of the average that each step keeps. `warmup`: less in the first steps, so
    that it reaches back over a ninth of the run so far. `evaluate_raw`: score the weights that are
    trained as well, as `raw/AP`.
    """

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.9998
    warmup: bool = True
    evaluate_raw: bool = False


class EarlyStoppingConfig(Section):
    """End a run when AP has not risen by more than `min_delta` in `patience` evaluations."""

    patience: Count = 5
    min_delta: Fraction = 0.0


class FreezeConfig(Section):
    """Keep the backbone as it is for the first epochs or steps of a run."""

    backbone_epochs: Count | None = None
    backbone_steps: Count | None = None

    @model_validator(mode="after")
    def _one_length(self) -> "FreezeConfig":
        if (self.backbone_epochs is None) == (self.backbone_steps is None):
            msg = "give how long it is frozen as either `backbone_epochs` or `backbone_steps`"
            raise ValueError(msg)
        return self


class TrainConfig(Section):
    """Length and manner of a training run.

    `batch_size`: images per step of the optimizer. `accumulate`: take them in this many parts, one
    after the other, to save memory.
    `tensorboard`: also write what metrics.jsonl holds for TensorBoard, an extra.
    `save_every_*`: when `last.pt` is written besides before and after every evaluation.
    `keep_every_epochs`: also keep the checkpoint of every K-th epoch as `epoch_<number>.pt`.
    """

    epochs: Count | None = None
    steps: Count | None = None
    batch_size: Count = 16
    accumulate: Count = 1
    ema: EMAConfig | None = None
    early_stopping: EarlyStoppingConfig | None = None
    freeze: FreezeConfig | None = None
    amp: Literal["off", "bf16", "fp16"] = "off"
    eval_every_epochs: Count = 1
    log_every_steps: Count = 20
    tensorboard: bool = False
    save_every_epochs: Count | None = 1
    save_every_steps: Count | None = None
    save_every_minutes: Positive | None = 10.0
    keep_every_epochs: Count | None = None

    @model_validator(mode="after")
    def _one_length(self) -> "TrainConfig":
        if (self.epochs is None) == (self.steps is None):
            msg = "give the length of the run as either `epochs` or `steps`"
            raise ValueError(msg)
        if self.accumulate > self.batch_size:
            msg = f"accumulate: at most one part per image of `batch_size`, {self.batch_size}"
            raise ValueError(msg)
        return self


class EvalConfig(Section):
    """How detections are scored."""

    backend: Literal["auto", "pycocotools", "faster-coco-eval"] = "auto"
    batch_size: Count = 4
    max_detections: Annotated[
        int,
        Field(
            gt=10,
            description="Detections of an image and class that AP counts, best first. 100 is "
            "COCO's own; with another number the metric AR100 is called after it. More than the "
            "detector's detections_per_img changes nothing.",
        ),
    ] = 100


class RuntimeConfig(Section):
    """How fast it runs: nothing here changes what is computed, but for the last digits.

    `channels_last`: backbones run 1.1 to 1.4 times faster with it on a CPU, and on tensor cores.
    `tf32`: float32 products on tensor cores with ten bits of mantissa; CUDA only.
    `cudnn_benchmark`: try cuDNN's algorithms for every new size; only for images of few sizes.
    `deterministic`: equal bits on CUDA too, slower; on a CPU they are equal anyway.
    `compile`: torch.compile for backbone, FPN and DyHead's blocks in training, but not for the fast
    DyHead, which is slower compiled; the first step takes minutes.
    """

    channels_last: bool = True
    tf32: bool = True
    cudnn_benchmark: bool = False
    deterministic: bool = False
    compile: bool = False


class RunConfig(Section):
    """A whole run: what a YAML file holds."""

    seed: NaturalNumber = 0
    data: DataConfig
    model: ModelConfig
    optim: OptimConfig = OptimConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig
    eval: EvalConfig = EvalConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @model_validator(mode="after")
    def _can_stop_early(self) -> "RunConfig":
        if self.train.early_stopping is not None and self.data.val is None:
            msg = "train.early_stopping: needs validation data; give data.val or write null"
            raise ValueError(msg)
        return self


def parse_config(raw: dict[str, Any]) -> RunConfig:
    """Check plain values, as `to_plain` returns them.

    Raises:
        pydantic.ValidationError: If a value does not fit.
    """
    return parse_section(RunConfig, raw)


def to_plain(config: Section) -> dict[str, Any]:
    """Return plain values: what a checkpoint stores and a YAML file shows."""
    plain: dict[str, Any] = config.model_dump(mode="json")
    return plain


def changed_keys(
    old: dict[str, Any], new: dict[str, Any], harmless: tuple[str, ...] = (), prefix: str = ""
) -> list[str]:
    """Return the dotted keys whose plain values differ, leaving out harmless ones."""
    changed: list[str] = []
    for key in [*old, *(key for key in new if key not in old)]:
        path = f"{prefix}{key}"
        before, after = old.get(key), new.get(key)
        if path in harmless or before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            changed += changed_keys(before, after, harmless, f"{path}.")
        else:
            changed.append(path)
    return changed


def did_you_mean(word: str, known: tuple[str, ...] | list[str]) -> str:
    """Return ``"did you mean 'x'? "`` where a known word is near, else nothing."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}? " if near else ""


def parse_section(kind: type[AnySection], raw: dict[str, Any]) -> AnySection:
    """Check plain values against a section; errors as in `parse_config`."""
    # By way of JSON: in strict mode a list is a tuple there, and nothing else is converted.
    return kind.model_validate_json(json.dumps(raw))
