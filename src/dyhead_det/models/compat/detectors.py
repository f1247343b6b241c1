"""The conventions under which published weights were trained, where torchvision's differ.

`model.compat` chooses them: `detectron2` for the authors' four models, `mmdet` for mmdetection's.
A wrong one costs boxes without any error. Each has its place:

| convention | place |
|---|---|
| pixels are resized as integers, sizes rounded half up, then normalised | `input.py` |
| boxes are clipped to the image that was given, and empty ones dropped | `input.py` |
| anchors are not rounded, and come size by size | `Detectron2AnchorGenerator` |
| proposals: by logit, clipped without padding, only empty ones dropped | `fasterrcnn.py` |
| regions: aligned pooling, adaptive samples, levels | `fasterrcnn.py` |
| no removal of small boxes | `fasterrcnn.py` |
| RetinaNet: no clipping before the non-maximum suppression | `retinanet.py` |
| mmdetection: boxes shrink by no more than they may grow | `TwoSidedBoxCoder` |
| rounding of frozen batch norms; mmdetection's P7 | `layers.py` |
| Swin's windows are shifted on small maps too | `swin.py` |

The rest follows from ordinary options: the stride in the 1x1 convolution
(`model.backbone.stride_in_1x1`), the offsets of the coarser level (`model.dyhead.coarse_offsets`),
anchor sizes, thresholds, ATSS's options, and the padding, which is the coarsest level's stride
(with less, P6 and P7 have other sizes, and every feature changes by way of the global poolings).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator

from dyhead_det.config.schema import FasterRCNNConfig, ModelConfig, RetinaNetConfig
from dyhead_det.models.atss.detector import ATSS, DELTA_WEIGHTS
from dyhead_det.models.compat.fasterrcnn import use_detectron2_steps
from dyhead_det.models.compat.input import CompatTransform
from dyhead_det.models.compat.retinanet import Detectron2RetinaNet


def with_compat_conventions(network: nn.Module, config: ModelConfig) -> nn.Module:
    """Return the detector with the steps of `config.compat`; layers and names of weights stay.

    Args:
        network: What torchvision's conventions gave; its parts are used again.
        config: What it was built from, `compat` not `none`.
    """
    transform = CompatTransform(network.transform, resize=config.input.resize, compat=config.compat)
    if isinstance(network, FasterRCNN) and isinstance(config.detector, FasterRCNNConfig):
        use_detectron2_steps(
            network, config.detector, anchor_generator=_anchor_generator(config.detector)
        )
    if isinstance(network, RetinaNet) and isinstance(config.detector, RetinaNetConfig):
        network = Detectron2RetinaNet(
            network.backbone,
            network.head.classification_head.num_classes,
            anchor_generator=_anchor_generator(config.detector),
            head=network.head,
            score_thresh=config.detector.score_thresh,
            nms_thresh=config.detector.nms_thresh,
            detections_per_img=config.detector.detections_per_img,
            fg_iou_thresh=config.detector.fg_iou_thresh,
            bg_iou_thresh=config.detector.bg_iou_thresh,
            topk_candidates=config.detector.topk_candidates,
        )
    if isinstance(network, ATSS) and config.compat == "mmdet":
        network.box_coder = TwoSidedBoxCoder(DELTA_WEIGHTS)
    network.transform = transform
    return network


def _anchor_generator(config: FasterRCNNConfig | RetinaNetConfig) -> AnchorGenerator:
    ratios = (config.anchor_ratios,) * len(config.anchor_sizes)
    return Detectron2AnchorGenerator(config.anchor_sizes, ratios)


class TwoSidedBoxCoder(BoxCoder):  # type: ignore[misc]  # untyped base
    """Deltas of mmdetection: the logarithm of a side is bounded below, too, not above only."""

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        """Turn deltas (N, 4) and anchors (N, 4) into boxes (N, 4)."""
        places, sides = rel_codes.chunk(2, dim=1)
        sides = sides.clamp(min=-self.bbox_xform_clip * self.weights[2])
        decoded: Tensor = super().decode_single(torch.cat([places, sides], dim=1), boxes)
        return decoded


class Detectron2AnchorGenerator(AnchorGenerator):  # type: ignore[misc]  # untyped base
    """Anchors of detectron2: sides are not rounded, and all ratios of a size stand together.

    Torchvision rounds (22.63 becomes 23) and puts all sizes of a ratio together.
    """

    def generate_anchors(
        self,
        scales: Sequence[float],
        aspect_ratios: Sequence[float],
        dtype: torch.dtype = torch.float32,
        device: torch.device = torch.device("cpu"),  # noqa: B008 - torchvision's signature
    ) -> Tensor:
        """Return the anchors of one level around (0, 0): (A, 4), size-major."""
        widths_heights = [
            (width := math.sqrt(size**2 / ratio), ratio * width)
            for size in scales
            for ratio in aspect_ratios
        ]
        sides = torch.tensor(widths_heights, dtype=dtype, device=device)
        return torch.cat([-sides, sides], dim=1) / 2
