"""RetinaNet under detectron2's conventions: torchvision's, but other boxes chosen at the end."""

import torch
from torch import Tensor
from torchvision.models.detection import RetinaNet
from torchvision.models.detection import _utils as det_utils
from torchvision.ops import batched_nms


class Detectron2RetinaNet(RetinaNet):  # type: ignore[misc]  # untyped base
    """Torchvision's RetinaNet without its clipping before the non-maximum suppression."""

    def postprocess_detections(
        self,
        head_outputs: dict[str, list[Tensor]],
        anchors: list[list[Tensor]],
        image_shapes: list[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        """Return the best boxes of every image, unclipped, in pixels of the resized image.

        Args:
            head_outputs: Per level `cls_logits` (B, A_l, K) and `bbox_regression` (B, A_l, 4).
            anchors: Per image and level (A_l, 4).
            image_shapes: One per image; detectron2 does not look at them.
        """
        detections = []
        for index in range(len(image_shapes)):
            levels = [
                self._candidates(logits[index], deltas[index], level_anchors)
                for logits, deltas, level_anchors in zip(
                    head_outputs["cls_logits"],
                    head_outputs["bbox_regression"],
                    anchors[index],
                    strict=True,
                )
            ]
            boxes, scores, labels = (torch.cat(each) for each in zip(*levels, strict=True))
            keep = batched_nms(boxes, scores, labels, self.nms_thresh)[: self.detections_per_img]
            detections.append(
                {"boxes": boxes[keep], "scores": scores[keep], "labels": labels[keep]}
            )
        return detections

    def _candidates(
        self, logits: Tensor, deltas: Tensor, anchors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the best boxes, scores and labels of one level of one image."""
        scores = logits.sigmoid().flatten()  # (A_l * K,)
        indices = (scores > self.score_thresh).nonzero().flatten()
        scores = scores[indices]
        scores, order = scores.topk(det_utils._topk_min(scores, self.topk_candidates, 0))
        indices = indices[order]
        anchor_index = indices // logits.shape[1]
        boxes = self.box_coder.decode_single(deltas[anchor_index], anchors[anchor_index])
        return boxes, scores, indices % logits.shape[1]
