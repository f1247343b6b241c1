"""Loss normalizers of the full batch, so that micro-batch losses sum to the full-batch loss.

Torchvision's Faster R-CNN and RetinaNet average over images. FCOS and ATSS divide by what is
foreground in all images together; a micro-batch with few objects counts for little in the batch.
What is foreground follows from boxes and anchors alone, so it is known before the model has run.
"""

import torch
from torch import Tensor

from dyhead_det.contracts import Target
from dyhead_det.models.detectors import Detector

PER_IMAGE = "images"


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
        zero; the losses divide by the specification's `loss_floors` then (1 where none is given).
    """
    device = next(detector.parameters()).device
    num_images = torch.tensor(float(len(targets)), device=device)
    normalizers_of = detector.spec.loss_normalizers
    if normalizers_of is None:
        return {PER_IMAGE: num_images}
    # Nobody looks at a pixel: images without memory are resized at no cost.
    images = [torch.empty(3, *size_hw, device="meta") for size_hw in sizes_hw]
    if not images:  # an image that is all background adds nothing to what is foreground
        images, targets = _image_without_objects(device)
    detector.image_seeds.start(seed, targets)
    # Not called as a module: hooks expect a batch that is going to be trained on.
    batch, resized = detector.transform.forward(images, detector.to_torchvision(targets))
    height, width = batch.tensors.shape[-2:]
    maps = [
        num_images.new_empty(1, 1, -(-height // stride), -(-width // stride))
        for stride in detector.spec.levels.strides
    ]
    anchors = detector.network.get_submodule("anchor_generator")(batch, maps)
    num_anchors_per_level = [x.shape[-2] * x.shape[-1] for x in maps]
    return normalizers_of(detector.network, resized, anchors, num_anchors_per_level)


def loss_weights(
    detector: Detector, normalizers: dict[str, Tensor], of_batch: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Return by what the losses of a micro-batch are multiplied, so that those of all add up.

    Args:
        detector: The same as for `loss_normalizers`.
        normalizers: Of a micro-batch, from `loss_normalizers`.
        of_batch: The sums over all micro-batches.
    """
    weights = {}
    for name, normalizer in normalizers.items():
        floor = detector.spec.loss_floors.get(name, 1.0)
        weights[name] = normalizer.clamp(min=floor) / of_batch[name].clamp(min=floor)
    return weights


def _image_without_objects(device: torch.device) -> tuple[list[Tensor], list[Target]]:
    target = Target(
        boxes=torch.zeros(0, 4, device=device),
        labels=torch.zeros(0, dtype=torch.int64, device=device),
    )
    return [torch.empty(3, 1, 1, device="meta")], [target]
