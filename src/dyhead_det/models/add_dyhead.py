"""DyHead in a torchvision detector that exists already."""

from typing import TypeVar

import torch
from torch import nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from dyhead_det.dyhead.head import DyHead
from dyhead_det.models.backbones.probe import probe
from dyhead_det.models.backbones.pyramid import DyHeadBackbone

# Pixels of the image on which the pyramid is tried: with them the coarsest level, P7, has two.
_PROBE_SIDE = 256

TorchvisionDetector = TypeVar("TorchvisionDetector", bound=nn.Module)


def add_dyhead(
    detector: TorchvisionDetector,
    num_blocks: int = 6,
    *,
    residual: bool = True,
    residual_scale: float = 0.01,
) -> TorchvisionDetector:
    """Put a new DyHead behind the FPN of a torchvision detector, in place, and return it.

    Weights, their names, labels and settings of the detector stay. With `residual` it detects at
    first almost what it did before, with ``residual_scale=0`` exactly that; without, the new layers
    replace the maps that its heads know, which have to learn anew.

    Args:
        detector: Faster R-CNN, Mask R-CNN, Keypoint R-CNN, RetinaNet or FCOS with an FPN, trained
            or not.
        num_blocks: DyHead's blocks, six in the paper.
        residual: Let DyHead learn a change of the maps instead of new ones.
        residual_scale: By how much the change counts at the start.

    Raises:
        TypeError: The detector has no backbone with an FPN.
        ValueError: The channels of its FPN do not form 16 groups, or a level is not half the size
            of the one before.

    Example:
        >>> from torchvision.models.detection import retinanet_resnet50_fpn
        >>> from dyhead_det import add_dyhead
        >>> detector = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3)
        >>> detector = add_dyhead(detector, num_blocks=2)
        >>> len(detector.backbone.dyhead.blocks)
        2
    """
    backbone = getattr(detector, "backbone", None)
    if isinstance(backbone, DyHeadBackbone):
        raise TypeError(f"{type(detector).__name__} has a DyHead already")
    if not isinstance(backbone, BackboneWithFPN):
        raise TypeError(
            f"add_dyhead needs a torchvision detector whose backbone is a BackboneWithFPN; that of "
            f"{type(detector).__name__} is {type(backbone).__name__}. Give a detector with another "
            "backbone a DyHeadBackbone(body, fpn, dyhead)"
        )
    dyhead = DyHead(
        backbone.out_channels, num_blocks, residual=residual, residual_scale=residual_scale
    )
    parameter = next(backbone.parameters())
    dyhead.to(device=parameter.device, dtype=parameter.dtype).train(detector.training)
    with_dyhead = DyHeadBackbone(
        backbone.body, backbone.fpn, dyhead, out_channels=backbone.out_channels
    )
    with_dyhead.training = backbone.training
    with torch.no_grad():
        probe(with_dyhead, _PROBE_SIDE)  # DyHead refuses what is no pyramid
    detector.backbone = with_dyhead
    return detector
