"""The detector of a checkpoint, at the size of its training or another."""

import torch

from dyhead_det.checkpoints.checkpoint import Checkpoint
from dyhead_det.checkpoints.consistency import require_consistent
from dyhead_det.checkpoints.state_dicts import load_exactly, require_exact
from dyhead_det.config.schema import InputConfig
from dyhead_det.errors import ConfigError
from dyhead_det.models.detectors import Detector, build_detector
from dyhead_det.prediction.arguments import MAX_EDGE, require_edges


def rebuild_detector(
    checkpoint: Checkpoint, *, short_edge: int | None, long_edge: int | None
) -> Detector:
    """Build the detector of a checkpoint on the CPU; arguments and errors are those of `load`."""
    model, num_classes = checkpoint.config.model, len(checkpoint.categories)
    require_consistent(checkpoint, source=checkpoint.source)
    if model.backbone.name.startswith("timm/"):  # which has models of any size
        with torch.device("meta"):
            planned = build_detector(model, num_classes=num_classes, load_backbone_weights=False)
        require_exact(checkpoint.model, planned.state_dict(), source=checkpoint.source)
    detector = build_detector(model, num_classes=num_classes, load_backbone_weights=False)
    load_exactly(detector, checkpoint.model, source=checkpoint.source)
    short, long = _test_size(checkpoint.config.model.input, short_edge, long_edge)
    detector.set_test_size(short_edge=short, long_edge=long)
    return detector


def _test_size(
    training: InputConfig, short_edge: int | None, long_edge: int | None
) -> tuple[int, int]:
    """Complete the size that was asked for; a lone edge keeps the proportion of training.

    Raises:
        ConfigError: where the shorter edge is the longer.
        ValueError: where an edge is no number of pixels.
    """
    require_edges(short_edge, long_edge)
    if short_edge is None and long_edge is None:
        return training.short_edge, training.long_edge
    proportion = training.long_edge / training.short_edge
    short_edge = short_edge or max(1, round((long_edge or 1) / proportion))
    long_edge = long_edge or min(MAX_EDGE, round(short_edge * proportion))
    if short_edge > long_edge:
        raise ConfigError(f"short edge {short_edge} is longer than long edge {long_edge}")
    return short_edge, long_edge
