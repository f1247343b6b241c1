"""A checkpoint's configuration against the shapes of its weights, before anything is built of it.

A configuration of a few bytes can ask for gigabytes. What makes a detector large is compared here;
every other shape is compared when the weights are loaded.
"""

import re

from dyhead_det.checkpoints.checkpoint import Checkpoint
from dyhead_det.config.schema import FasterRCNNConfig, ModelConfig, RetinaNetConfig
from dyhead_det.errors import CheckpointError

_BLOCK = re.compile(r"network\.backbone\.dyhead\.blocks\.(\d+)\.")


def require_consistent(checkpoint: Checkpoint, *, source: str) -> None:
    """Check that the model that a checkpoint describes is as large as its weights.

    Raises:
        CheckpointError: With all sizes that differ.
    """
    model = checkpoint.config.model
    problems = []
    for name, (what, size) in _first_sizes(model, len(checkpoint.categories)).items():
        tensor = checkpoint.model.get(name)
        found = tensor.shape[0] if tensor is not None and tensor.ndim else None
        if found != size:
            problems.append(f"{what}: {size} in its configuration, {found} in {name}")
    blocks = {match[1] for name in checkpoint.model if (match := _BLOCK.match(name))}
    num_blocks = 0 if model.dyhead is None else model.dyhead.num_blocks
    if len(blocks) != num_blocks:
        problems.append(
            f"model.dyhead.num_blocks: {num_blocks} in its configuration, {len(blocks)} in its "
            "weights"
        )
    if problems:
        raise CheckpointError(f"{source}: configuration and weights differ; {'; '.join(problems)}")


def _first_sizes(model: ModelConfig, num_classes: int) -> dict[str, tuple[str, int]]:
    """Return what the first size of a tensor is, by its name: the key it follows from, the size."""
    sizes = {"network.backbone.fpn.layer_blocks.0.0.weight": ("model.channels", model.channels)}
    detector = model.detector
    if isinstance(detector, FasterRCNNConfig):
        num_anchors = len(detector.anchor_sizes[0]) * len(detector.anchor_ratios)
        head = "network.roi_heads.box_"
        return sizes | {
            "network.rpn.head.cls_logits.weight": ("anchors of a position", num_anchors),
            f"{head}head.fc6.weight": (
                "model.detector.box_head_channels",
                detector.box_head_channels,
            ),
            f"{head}predictor.cls_score.weight": ("classes with background", num_classes + 1),
        }
    if isinstance(detector, RetinaNetConfig):
        num_scores = num_classes * len(detector.anchor_sizes[0]) * len(detector.anchor_ratios)
        name = "network.head.classification_head.cls_logits.weight"
        return sizes | {name: ("classes times anchors", num_scores)}
    part = "classification_head." if detector.name == "fcos" else ""
    return sizes | {f"network.head.{part}cls_logits.weight": ("classes", num_classes)}
