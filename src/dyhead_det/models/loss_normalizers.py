"""What the losses of a batch are divided by: with it, losses of parts add up to the whole's.

Torchvision's Faster R-CNN and RetinaNet average over images. FCOS and ATSS divide by what is
positive in all images together; a part with few objects counts for little in the whole. What is
positive follows from boxes and places alone, so it is known before the network has run.
"""

from types import SimpleNamespace

import torch
from torch import Tensor
from torchvision.models.detection import FCOS

from dyhead_det.contracts import Target
from dyhead_det.models.atss.detector import ATSS
from dyhead_det.models.atss.loss import TINY, centerness
from dyhead_det.models.detectors import Detector

PER_IMAGE = "images"
# Those of FCOS and ATSS.
LOSSES = ("classification", "bbox_regression", "bbox_ctrness")
# The least that a loss is divided by; where nothing is positive, its box losses are zero anyhow.
FLOORS = {"bbox_regression": TINY}


@torch.no_grad()
def loss_normalizers(
    detector: Detector, sizes_hw: list[tuple[int, int]], targets: list[Target], *, seed: int
) -> dict[str, Tensor]:
    """Return what the losses of these images are divided by.

    Faster R-CNN's are means over images as long as every image has its full sample of anchors and
    proposals; with fewer, an image counts by its sample, which nobody knows beforehand.

    Args:
        detector: In training mode.
        sizes_hw: Height and width of the B images that the detector will take.
        targets: Of the images, where the detector is.
        seed: As the detector will be given it.

    Returns:
        Scalars by name of loss, or one for all of them under the name `PER_IMAGE`. They may be
        zero; the losses divide by the `FLOORS` then (1 where none is given).
    """
    network = detector.network
    device = next(detector.parameters()).device
    num_images = torch.tensor(float(len(targets)), device=device)
    if not isinstance(network, FCOS | ATSS):
        return {PER_IMAGE: num_images}
    if not targets:
        return dict.fromkeys(LOSSES, num_images)
    detector.image_seeds.start(seed, targets)
    # Nobody looks at a pixel: images without memory are resized at no cost.
    images = [torch.empty(3, *size_hw, device="meta") for size_hw in sizes_hw]
    # Not called as a module: hooks expect a batch that is going to be trained on.
    batch, resized = network.transform.forward(images, detector.to_torchvision(targets))
    height, width = batch.tensors.shape[-2:]
    maps = [
        num_images.new_empty(1, 1, -(-height // stride), -(-width // stride))
        for stride in detector.backbone.levels.strides
    ]
    anchors = network.anchor_generator(batch, maps)
    num_anchors_per_level = [x.shape[-2] * x.shape[-1] for x in maps]
    if isinstance(network, FCOS):
        matched = _match_fcos(network, resized, anchors, num_anchors_per_level)
    else:
        matched = network.match(resized, anchors, num_anchors_per_level)
    num_positive = (torch.stack(matched) >= 0).sum().to(num_images.dtype)
    counts = dict.fromkeys(LOSSES, num_positive)
    if isinstance(network, ATSS):
        counts["bbox_regression"] = _centerness_sum(resized, anchors, matched)
    return counts


def loss_weights(counts: dict[str, Tensor], whole: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return by what the losses of a part are multiplied, so that those of all parts add up.

    Args:
        counts: Of a part, from `loss_normalizers`.
        whole: The sums over all parts.
    """
    shares = {}
    for name, count in counts.items():
        floor = FLOORS.get(name, 1.0)
        shares[name] = count.clamp(min=floor) / whole[name].clamp(min=floor)
    return shares


def _match_fcos(
    network: FCOS,
    targets: list[dict[str, Tensor]],
    anchors: list[Tensor],
    num_anchors_per_level: list[int],
) -> list[Tensor]:
    """Return the index of the box of every place of every image, -1 for background, (A,).

    Torchvision matches where it computes the losses; a head that returns the matches in place of
    losses gets them from there.
    """
    stand_in = SimpleNamespace(
        center_sampling_radius=network.center_sampling_radius,
        head=SimpleNamespace(compute_loss=lambda _targets, _outputs, _anchors, matched: matched),
    )
    matched: list[Tensor] = FCOS.compute_loss(stand_in, targets, {}, anchors, num_anchors_per_level)
    return matched


def _centerness_sum(
    targets: list[dict[str, Tensor]], anchors: list[Tensor], matched: list[Tensor]
) -> Tensor:
    """Return the sum of ATSS's weights of boxes."""
    sums = [
        centerness(image_anchors[match >= 0], target["boxes"][match[match >= 0]]).sum()
        for target, image_anchors, match in zip(targets, anchors, matched, strict=True)
    ]
    return torch.stack(sums).sum()
