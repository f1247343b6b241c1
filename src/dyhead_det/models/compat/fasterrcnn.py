"""Faster R-CNN under detectron2's conventions: three steps where torchvision does otherwise.

* Proposals are ranked by logit (a sigmoid in float32 makes ties of high ones), clipped to the
  image without its padding, and only empty ones are dropped.
* Regions are pooled with half a pixel's shift (`aligned`) and as many samples as they need.
* Detections are dropped only by score, never for being small.

Losses are torchvision's own.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import batched_nms, box_area, clip_boxes_to_image

from dyhead_det.ops.roi_align import pool_by_level, regions_of


class Detectron2RegionProposalNetwork(RegionProposalNetwork):  # type: ignore[misc]  # untyped base
    """Torchvision's RPN with detectron2's choice of proposals."""

    def filter_proposals(
        self,
        proposals: Tensor,
        objectness: Tensor,
        image_shapes: list[tuple[int, int]],
        num_anchors_per_level: list[int],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Choose proposals: the best of every level, suppressed within it, the best of all.

        Args:
            proposals: (B, A, 4), in pixels of the resized images.
            objectness: Logits of all images and anchors, (B * A, 1).
            image_shapes: Height and width of the resized images without padding.
            num_anchors_per_level: L numbers whose sum is A.

        Returns:
            Per image boxes (N, 4) and logits (N,), best first.
        """
        logits = objectness.detach().reshape(len(proposals), -1)
        chosen = self._get_top_n_idx(logits, num_anchors_per_level)  # (B, M)
        level_of_anchor = torch.cat(
            [logits.new_full((n,), level) for level, n in enumerate(num_anchors_per_level)]
        )
        boxes_of_images, logits_of_images = [], []
        for index, image_shape in enumerate(image_shapes):
            indices = chosen[index]
            unclipped, scores = proposals[index, indices], logits[index, indices]
            boxes = clip_boxes_to_image(unclipped, image_shape)
            keep = unclipped.isfinite().all(dim=1) & scores.isfinite()
            keep = keep & (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
            keep = keep & (scores.sigmoid() >= self.score_thresh)
            boxes, scores, indices = boxes[keep], scores[keep], indices[keep]
            kept = batched_nms(boxes, scores, level_of_anchor[indices], self.nms_thresh)
            kept = kept[: self.post_nms_top_n()]
            boxes_of_images.append(boxes[kept])
            logits_of_images.append(scores[kept])
        return boxes_of_images, logits_of_images


class Detectron2RoIAlign(nn.Module):
    """Pool each region from the level of its size, with detectron2's ROIAlignV2."""

    def __init__(
        self, level_names: Sequence[str], *, finest_level: int, output_size: tuple[int, int]
    ) -> None:
        super().__init__()
        self.level_names = tuple(level_names)
        self.finest_level = finest_level
        self.output_size = output_size

    def forward(
        self, maps: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> Tensor:
        """Return (N, C, *output_size) for the N boxes of all images.

        Args:
            maps: The pyramid, (B, C, H_l, W_l) by name.
            boxes: Per image (N_b, 4), in pixels of the resized images.
            image_shapes: Not needed: strides are known.
        """
        del image_shapes
        return pool_by_level(
            [maps[name] for name in self.level_names],
            regions_of(boxes),
            self._level_of(torch.cat(boxes)),
            [2.0 ** -(self.finest_level + level) for level in range(len(self.level_names))],
            output_size=self.output_size,
            sampling_ratio=0,  # as many as a bin has pixels
            aligned=True,
        )

    def _level_of(self, boxes: Tensor) -> Tensor:
        """Return the position in `level_names` for each box, (N,).

        A box of 224 x 224 belongs to P4. The small number is inside the logarithm in detectron2
        and outside in torchvision; boxes of exactly 2^k * 112 change their level by that.
        """
        sizes = box_area(boxes).sqrt()
        levels = torch.floor(4 + torch.log2(sizes / 224 + 1e-8)).long() - self.finest_level
        return levels.clamp(0, len(self.level_names) - 1)


class Detectron2RoIHeads(RoIHeads):  # type: ignore[misc]  # untyped base
    """Torchvision's box head without its removal of small boxes."""

    def postprocess_detections(
        self,
        class_logits: Tensor,
        box_regression: Tensor,
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Return per image the best boxes, their scores and labels 1..K.

        Args:
            class_logits: (N, K + 1) for the proposals of all images; column 0 is background.
            box_regression: (N, 4 (K + 1)).
            proposals: Per image (N_b, 4).
            image_shapes: Height and width of the resized images without padding.
        """
        num_proposals = [each.shape[0] for each in proposals]
        all_scores = F.softmax(class_logits, dim=-1)[:, 1:].split_with_sizes(num_proposals)
        decoded = self.box_coder.decode(box_regression, proposals)
        # Without proposals the coder leaves the classes unsplit.
        decoded = decoded.reshape(-1, class_logits.shape[1], 4)
        all_boxes = decoded[:, 1:].split_with_sizes(num_proposals)
        detections: dict[str, list[Tensor]] = {"boxes": [], "scores": [], "labels": []}
        for boxes, scores, image_shape in zip(all_boxes, all_scores, image_shapes, strict=True):
            rows, columns = (scores > self.score_thresh).nonzero(as_tuple=True)
            candidates = clip_boxes_to_image(boxes[rows, columns], image_shape)
            candidate_scores = scores[rows, columns]
            keep = batched_nms(candidates, candidate_scores, columns, self.nms_thresh)
            keep = keep[: self.detections_per_img]
            detections["boxes"].append(candidates[keep])
            detections["scores"].append(candidate_scores[keep])
            detections["labels"].append(columns[keep] + 1)
        return detections["boxes"], detections["scores"], detections["labels"]
