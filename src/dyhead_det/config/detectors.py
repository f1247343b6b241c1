"""The sections of the four detectors; keys and defaults of three are torchvision's keywords."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dyhead_det.config.section import Count, Fraction, Positive, Section, setting

NUM_LEVELS = 5
"""Of every detector's pyramid: P2 to P6 or P3 to P7."""

Sizes = Annotated[tuple[Positive, ...], Field(min_length=1, max_length=32)]
Channels = Annotated[int, Field(ge=1, le=16384)]


def _check_anchors(anchor_sizes: tuple[tuple[float, ...], ...]) -> None:
    if len(anchor_sizes) != NUM_LEVELS:
        raise ValueError(
            f"anchor_sizes: one list per level, {NUM_LEVELS} levels, got {len(anchor_sizes)}"
        )
    counts = [len(sizes) for sizes in anchor_sizes]
    if len(set(counts)) > 1:
        raise ValueError(
            f"anchor_sizes: all levels share one head, so each has as many sizes, got {counts}"
        )


def _check_thresholds(prefix: str, background: float, foreground: float) -> None:
    if background > foreground:
        raise ValueError(
            f"{prefix}bg_iou_thresh: {background} is above {prefix}fg_iou_thresh, {foreground}: a "
            "box would be background and foreground"
        )


class FasterRCNNConfig(Section):
    """Torchvision's FasterRCNN; the keys are its keywords, the defaults its defaults."""

    name: Literal["fasterrcnn"] = setting(..., "Faster R-CNN on P2 to P6.")
    anchor_sizes: tuple[Sizes, ...] = setting(
        ((32,), (64,), (128,), (256,), (512,)),
        "Square roots of the anchors' areas, a list for each of P2 to P6, in the resized image.",
        unit="px",
    )
    anchor_ratios: Sizes = setting((0.5, 1.0, 2.0), "Height by width of the anchors.", unit="ratio")
    rpn_pre_nms_top_n_train: Count = setting(
        2000, "Proposals of a level that are kept before NMS in training.", unit="boxes"
    )
    rpn_pre_nms_top_n_test: Count = setting(
        1000, "Proposals of a level that are kept before NMS at test time.", unit="boxes"
    )
    rpn_post_nms_top_n_train: Count = setting(
        2000, "Proposals of an image that are kept after NMS in training.", unit="boxes"
    )
    rpn_post_nms_top_n_test: Count = setting(
        1000, "Proposals of an image that are kept after NMS at test time.", unit="boxes"
    )
    rpn_nms_thresh: Fraction = setting(
        0.7, "Of two proposals that overlap more, the weaker one goes.", unit="IoU"
    )
    rpn_fg_iou_thresh: Fraction = setting(
        0.7, "Anchors that overlap an object at least so much are foreground.", unit="IoU"
    )
    rpn_bg_iou_thresh: Fraction = setting(
        0.3, "Anchors that overlap every object less are background.", unit="IoU"
    )
    rpn_batch_size_per_image: Count = setting(
        256, "Anchors of an image that the proposals are trained on.", unit="anchors"
    )
    rpn_positive_fraction: Fraction = setting(
        0.5, "Foreground among these anchors, at most.", unit="share"
    )
    rpn_score_thresh: Fraction = setting(0.0, "Weaker proposals are left out.", unit="score")
    box_score_thresh: Fraction = setting(
        0.05, "Weaker detections are left out at test time.", unit="score"
    )
    box_nms_thresh: Fraction = setting(
        0.5, "Of two detections of a class that overlap more, the weaker one goes.", unit="IoU"
    )
    box_detections_per_img: Count = setting(100, "Detections of an image, at most.", unit="boxes")
    box_fg_iou_thresh: Fraction = setting(
        0.5, "Proposals that overlap an object at least so much are foreground.", unit="IoU"
    )
    box_bg_iou_thresh: Fraction = setting(
        0.5, "Proposals that overlap every object less are background.", unit="IoU"
    )
    box_batch_size_per_image: Count = setting(
        512, "Proposals of an image that the classes are trained on.", unit="boxes"
    )
    box_positive_fraction: Fraction = setting(
        0.25, "Foreground among these proposals, at most.", unit="share"
    )
    box_head_channels: Channels = setting(
        1024, "Width of the two layers that look at a proposal.", unit="channels"
    )

    @model_validator(mode="after")
    def _can_be_built(self) -> "FasterRCNNConfig":
        _check_anchors(self.anchor_sizes)
        _check_thresholds("rpn_", self.rpn_bg_iou_thresh, self.rpn_fg_iou_thresh)
        _check_thresholds("box_", self.box_bg_iou_thresh, self.box_fg_iou_thresh)
        return self

    @property
    def detections_per_img(self) -> int:
        """The most detections of an image, by the name that the other detectors use."""
        return self.box_detections_per_img

    @property
    def nms_thresh(self) -> float:
        """The IoU of detections, by the name that the other detectors use."""
        return self.box_nms_thresh


class RetinaNetConfig(Section):
    """Torchvision's RetinaNet; the keys are its keywords, the defaults its defaults."""

    name: Literal["retinanet"] = setting(..., "RetinaNet on P3 to P7.")
    anchor_sizes: tuple[Sizes, ...] = setting(
        (
            (32, 40, 50),
            (64, 80, 101),
            (128, 161, 203),
            (256, 322, 406),
            (512, 645, 812),
        ),
        "Square roots of the anchors' areas, a list for each of P3 to P7, in the resized image.",
        unit="px",
    )
    anchor_ratios: Sizes = setting((0.5, 1.0, 2.0), "Height by width of the anchors.", unit="ratio")
    score_thresh: Fraction = setting(
        0.05, "Weaker detections are left out at test time.", unit="score"
    )
    nms_thresh: Fraction = setting(
        0.5, "Of two detections of a class that overlap more, the weaker one goes.", unit="IoU"
    )
    detections_per_img: Count = setting(300, "Detections of an image, at most.", unit="boxes")
    fg_iou_thresh: Fraction = setting(
        0.5, "Anchors that overlap an object at least so much are foreground.", unit="IoU"
    )
    bg_iou_thresh: Fraction = setting(
        0.4, "Anchors that overlap every object less are background.", unit="IoU"
    )
    topk_candidates: Count = setting(
        1000, "Detections of a level that are kept before NMS.", unit="boxes"
    )

    @model_validator(mode="after")
    def _can_be_built(self) -> "RetinaNetConfig":
        _check_anchors(self.anchor_sizes)
        _check_thresholds("", self.bg_iou_thresh, self.fg_iou_thresh)
        return self


class FCOSConfig(Section):
    """Torchvision's FCOS; the keys are its keywords, the defaults its defaults."""

    name: Literal["fcos"] = setting(..., "FCOS on P3 to P7.")
    center_sampling_radius: Positive = setting(
        1.5,
        "Locations that are nearer to an object's center are foreground.",
        unit="strides of the level",
    )
    score_thresh: Fraction = setting(
        0.2, "Weaker detections are left out at test time.", unit="score"
    )
    nms_thresh: Fraction = setting(
        0.6, "Of two detections of a class that overlap more, the weaker one goes.", unit="IoU"
    )
    detections_per_img: Count = setting(100, "Detections of an image, at most.", unit="boxes")
    topk_candidates: Count = setting(
        1000, "Detections of a level that are kept before NMS.", unit="boxes"
    )


class ATSSConfig(Section):
    """ATSS with the constants of the official DyHead models; without DyHead take 4 tower convs."""

    name: Literal["atss"] = setting(..., "ATSS on P3 to P7.")
    num_tower_convs: Annotated[int, Field(ge=0, le=4)] = setting(
        0, "Convolutions between the pyramid and the predictions.", unit="layers"
    )
    prediction_kernel: Literal[1, 3] = setting(
        1, "Side of the convolutions that predict, in cells."
    )
    anchor_offset: Fraction = setting(
        0.5, "Where an anchor's center lies in its cell, from the upper left.", unit="cells"
    )
    num_candidates: Annotated[int, Field(ge=1, le=1000)] = setting(
        9, "The nearest anchors of a level that an object chooses from.", unit="anchors"
    )
    score_thresh: Fraction = setting(
        0.05, "Weaker detections are left out at test time.", unit="score"
    )
    nms_thresh: Fraction = setting(
        0.6, "Of two detections of a class that overlap more, the weaker one goes.", unit="IoU"
    )
    detections_per_img: Count = setting(100, "Detections of an image, at most.", unit="boxes")
    topk_candidates: Count = setting(
        1000, "Detections of a level that are kept before NMS.", unit="boxes"
    )
    topk_by: Literal["product", "class_score"] = setting(
        "product",
        "What orders them: class score times centerness, as in the authors' code, or the class "
        "score alone, as in mmdetection.",
    )
    clip: Literal["before_nms", "after"] = setting(
        "before_nms", "When boxes are cut at the border of the image."
    )


DetectorConfig = Annotated[
    FasterRCNNConfig | RetinaNetConfig | FCOSConfig | ATSSConfig, Field(discriminator="name")
]
