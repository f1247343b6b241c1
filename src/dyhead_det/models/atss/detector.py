"""ATSS: a dense detector with one square anchor per position, scored by class and by centerness.

Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive Training
Sample Selection" (arXiv 1912.02424), shaped like torchvision's FCOS and RetinaNet: the same call,
the same targets and results, labels 0..K-1. How it learns stands in ``loss.py`` and
``../matchers.py``, how it is built from a configuration in ``spec.py``.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.models.detection import _utils as det_utils
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import batched_nms, clip_boxes_to_image

from dyhead_det.models.atss.loss import atss_losses
from dyhead_det.models.check_boxes import check_boxes
from dyhead_det.models.full_precision import full_precision
from dyhead_det.models.group_norm import build_group_norm
from dyhead_det.models.matchers import match_atss

TopkBy = Literal["product", "class_score"]
Clip = Literal["before_nms", "after"]

# The side of an anchor, in cells of its level.
ANCHOR_CELLS = 8
# What a fresh detector believes the share of objects among all positions to be (RetinaNet's prior).
PRIOR = 0.01
# The units of dx, dy, dw and dh: tenths and fifths.
DELTA_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


class ATSS(nn.Module):
    """Images -> backbone -> head -> losses, or detections."""

    def __init__(
        self,
        backbone: nn.Module,
        *,
        transform: GeneralizedRCNNTransform,
        anchor_generator: nn.Module,
        head: nn.Module,
        box_coder: det_utils.BoxCoder | None = None,
        num_candidates: int,
        score_thresh: float,
        nms_thresh: float,
        detections_per_img: int,
        topk_candidates: int,
        topk_by: TopkBy,
        clip: Clip,
    ) -> None:
        """Put the modules together.

        Args:
            backbone: images to an ordered dict of maps, fine to coarse.
            transform: resizing, normalizing and padding, and the way back.
            anchor_generator: called like torchvision's; one anchor per position.
            head: maps to class logits, box deltas and centerness logits, as `ATSSHead`.
            box_coder: deltas to boxes; None takes torchvision's, in the units of `DELTA_WEIGHTS`.
            num_candidates: anchors per level among which a box chooses in training.
            score_thresh: class score, without centerness, that a candidate must exceed.
            nms_thresh: IoU above which the weaker of two boxes of a class is dropped.
            detections_per_img: the most that is returned.
            topk_candidates: how many go on from each level.
            topk_by: rank a level's candidates by class score times centerness (as detectron2's
                models) or by the class score alone (as mmdetection's).
            clip: cut boxes at the image's borders before (as torchvision and mmdetection) or after
                non-maximum suppression (as detectron2). Boxes outside are dropped then.
        """
        super().__init__()
        self.transform = transform
        self.backbone = backbone
        self.anchor_generator = anchor_generator
        self.head = head
        self.box_coder = box_coder or det_utils.BoxCoder(DELTA_WEIGHTS)
        self.num_candidates = num_candidates
        self.score_thresh = score_thresh
        self.nms_thresh = nms_thresh
        self.detections_per_img = detections_per_img
        self.topk_candidates = topk_candidates
        self.topk_by = topk_by
        self.clip = clip

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Return losses in training mode, else detections.

        Args:
            images: B images (3, H, W), float RGB in [0, 1], of any sizes.
            targets: in training mode per image ``boxes`` (N, 4), pixels, and ``labels`` (N,).

        Returns:
            Losses by name, or per image ``boxes`` (N, 4), ``scores`` and ``labels`` (N,), best
            first.

        Raises:
            ValueError: training mode without targets.
            AssertionError: a box without width or height, or that is not a number.
        """
        original_sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        batch, resized_targets = self.transform(images, targets)
        if resized_targets is not None:
            check_boxes([target["boxes"] for target in resized_targets])
        features = list(self.backbone(batch.tensors).values())
        head_outputs = self.head(features)
        anchors = self.anchor_generator(batch, features)
        num_anchors_per_level = [x.shape[-2] * x.shape[-1] for x in features]
        if self.training:
            if resized_targets is None:
                raise ValueError("training mode needs targets; call .eval() to predict")
            return self.compute_loss(resized_targets, head_outputs, anchors, num_anchors_per_level)
        detections = self.postprocess_detections(
            head_outputs, anchors, num_anchors_per_level, batch.image_sizes
        )
        in_original_pixels: list[dict[str, Tensor]] = self.transform.postprocess(
            detections, batch.image_sizes, original_sizes
        )
        return in_original_pixels

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        num_anchors_per_level: list[int],
    ) -> dict[str, Tensor]:
        """Return the losses; targets in pixels of the resized images."""
        matched = self.match(targets, anchors, num_anchors_per_level)
        return atss_losses(
            head_outputs, anchors, targets, matched, decode=self.box_coder.decode_single
        )

    def match(
        self,
        targets: Sequence[Mapping[str, Tensor]],
        anchors: Sequence[Tensor],
        num_anchors_per_level: Sequence[int],
    ) -> list[Tensor]:
        """Return for each anchor of each image the index of its box, -1 for background, (A,)."""
        return [
            match_atss(
                image_anchors,
                target["boxes"],
                num_anchors_per_level=num_anchors_per_level,
                num_candidates=self.num_candidates,
            )
            for image_anchors, target in zip(anchors, targets, strict=True)
        ]

    def postprocess_detections(
        self,
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        num_anchors_per_level: list[int],
        image_sizes: list[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        """Return detections in pixels of the resized images, of which ``image_sizes`` are given."""
        class_logits, centerness_logits, deltas = (
            full_precision(head_outputs[key])
            for key in ("cls_logits", "bbox_ctrness", "bbox_regression")
        )
        detections = []
        for index, (image_anchors, image_size) in enumerate(zip(anchors, image_sizes, strict=True)):
            candidates = self._find_candidates(
                class_logits[index].sigmoid(),
                centerness_logits[index].sigmoid(),
                deltas[index],
                image_anchors,
                num_anchors_per_level,
            )
            detections.append(self._suppress(candidates, image_size))
        return detections

    def _find_candidates(
        self,
        class_scores: Tensor,
        centerness: Tensor,
        deltas: Tensor,
        anchors: Tensor,
        num_anchors_per_level: list[int],
    ) -> dict[str, Tensor]:
        """Return the best pairs of position and class of every level of one image.

        How many there are is asked once, at the end: a GPU is waited for there.

        Args:
            class_scores: (A, K), in [0, 1].
            centerness: (A, 1), in [0, 1].
            deltas: (A, 4).
            anchors: (A, 4).
            num_anchors_per_level: how many of the A belong to each level.
        """
        num_classes = class_scores.shape[1]
        products = class_scores * centerness
        ranked = products if self.topk_by == "product" else class_scores
        # The threshold is on the class score alone: a final score may lie below it.
        ranked = ranked.where(class_scores > self.score_thresh, -1.0)
        best, first = [], 0
        for level_ranked, num_anchors in zip(
            torch.split(ranked, num_anchors_per_level), num_anchors_per_level, strict=True
        ):
            pairs = level_ranked.flatten()
            num_best = det_utils._topk_min(pairs, self.topk_candidates, 0)
            best.append(pairs.topk(num_best).indices + first)
            first += num_anchors * num_classes
        chosen = torch.cat(best)
        chosen = chosen[ranked.flatten()[chosen] >= 0]
        position = torch.div(chosen, num_classes, rounding_mode="floor")
        return {
            "boxes": self.box_coder.decode_single(deltas[position], anchors[position]),
            "scores": products.flatten()[chosen],
            "labels": chosen % num_classes,
        }

    def _suppress(
        self, candidates: dict[str, Tensor], image_size: tuple[int, int]
    ) -> dict[str, Tensor]:
        """Drop what stronger boxes of the same class cover, and keep the best."""
        if self.clip == "before_nms":
            candidates = _clip_to_image(candidates, image_size)
        kept = batched_nms(
            candidates["boxes"], candidates["scores"], candidates["labels"], self.nms_thresh
        )[: self.detections_per_img]
        detections = {key: value[kept] for key, value in candidates.items()}
        return _clip_to_image(detections, image_size) if self.clip == "after" else detections


def _clip_to_image(detections: dict[str, Tensor], image_size: tuple[int, int]) -> dict[str, Tensor]:
    """Cut boxes at the borders of the image, without its padding, and drop those outside."""
    boxes = clip_boxes_to_image(detections["boxes"], image_size)
    has_area = torch.where((boxes[:, 2:] > boxes[:, :2]).all(dim=1))[0]
    return {key: value[has_area] for key, value in {**detections, "boxes": boxes}.items()}


class ATSSHead(nn.Module):
    """Maps of all levels -> class logits, box deltas and centerness logits of every position.

    All levels share the layers; only the deltas have a learned scale per level.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        num_levels: int,
        num_tower_convs: int,
        prediction_kernel: int,
    ) -> None:
        super().__init__()
        padding = prediction_kernel // 2
        self.cls_tower = _build_tower(in_channels, num_tower_convs)
        self.bbox_tower = _build_tower(in_channels, num_tower_convs)
        self.cls_logits = nn.Conv2d(in_channels, num_classes, prediction_kernel, padding=padding)
        self.bbox_reg = nn.Conv2d(in_channels, 4, prediction_kernel, padding=padding)
        self.bbox_ctrness = nn.Conv2d(in_channels, 1, prediction_kernel, padding=padding)
        self.scales = nn.Parameter(torch.ones(num_levels))
        for name, parameter in self.named_parameters():
            if parameter.ndim == 4:
                nn.init.normal_(parameter, std=0.01)
            elif name.endswith("bias"):
                prior_logit = math.log(PRIOR / (1 - PRIOR))
                nn.init.constant_(parameter, prior_logit if name == "cls_logits.bias" else 0)

    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        """Predict.

        Args:
            maps: one (B, C, H_l, W_l) per level, fine to coarse.

        Returns:
            ``cls_logits`` (B, A, K), ``bbox_regression`` (B, A, 4) and ``bbox_ctrness`` (B, A, 1),
            level after level, row after row.
        """
        logits, deltas, centerness = [], [], []
        for x, scale in zip(maps, self.scales, strict=True):
            bbox_features = self.bbox_tower(x)
            logits.append(_one_row_per_position(self.cls_logits(self.cls_tower(x))))
            deltas.append(_one_row_per_position(self.bbox_reg(bbox_features) * scale))
            centerness.append(_one_row_per_position(self.bbox_ctrness(bbox_features)))
        return {
            "cls_logits": torch.cat(logits, dim=1),
            "bbox_regression": torch.cat(deltas, dim=1),
            "bbox_ctrness": torch.cat(centerness, dim=1),
        }


def _build_tower(channels: int, num_convs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(num_convs):
        layers += [
            nn.Conv2d(channels, channels, kernel_size=3, padding=1),
            build_group_norm(channels),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


def _one_row_per_position(x: Tensor) -> Tensor:
    """Turn (B, K, H, W) into (B, H * W, K)."""
    return x.flatten(2).transpose(1, 2)


class SquareAnchors(nn.Module):
    """One square anchor per position, eight cells wide; the call of torchvision's generator.

    Torchvision's own takes an anchor's distance from the size of the padded image, which is not the
    stride where a level does not divide it, and centers its anchors on the corners of the cells.
    """

    def __init__(self, strides: Sequence[int], *, anchor_offset: float) -> None:
        """Note the geometry.

        Args:
            strides: pixels per cell of every level.
            anchor_offset: where in its cell an anchor is centered: 0.5 its middle, 0 its corner.
        """
        super().__init__()
        self.strides = tuple(strides)
        self.anchor_offset = anchor_offset

    def forward(self, images: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Return the anchors (A, 4) of every image, level after level, row after row."""
        levels = zip(feature_maps, self.strides, strict=True)
        anchors = torch.cat([self._anchors_of_level(x, stride) for x, stride in levels])
        return [anchors] * len(images.image_sizes)

    def _anchors_of_level(self, x: Tensor, stride: int) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        center_y, center_x = (
            (torch.arange(size, dtype=dtype, device=x.device) + self.anchor_offset) * stride
            for size in x.shape[-2:]
        )
        grid_y, grid_x = torch.meshgrid(center_y, center_x, indexing="ij")
        centers = torch.stack((grid_x, grid_y), dim=-1).flatten(0, 1)  # (A_l, 2)
        half = ANCHOR_CELLS * stride / 2
        return torch.cat((centers - half, centers + half), dim=1)
