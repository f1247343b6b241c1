"""Load a trained detector from a checkpoint, or from an ONNX file made of one."""

import logging
import os
from pathlib import Path

import torch

from dyhead_det.checkpoints.checkpoint import Checkpoint, load_checkpoint
from dyhead_det.config.precision import Amp
from dyhead_det.distributed.device import choose_device
from dyhead_det.errors import ConfigError
from dyhead_det.prediction.arguments import Views, require_amp, require_edges
from dyhead_det.prediction.onnx_detector import is_onnx, load_onnx
from dyhead_det.prediction.predictor import Predictor

logger = logging.getLogger(__name__)


def load(
    path: str | os.PathLike[str],
    *,
    device: str = "auto",
    short_edge: int | None = None,
    long_edge: int | None = None,
    amp: Amp = "off",
    tile: int | None = None,
    tile_overlap: float | None = None,
    tta: str = "",
) -> Predictor:
    """Load a trained detector.

    Args:
        path: a checkpoint, `best.pt` or `last.pt` of a run, or a file that `export` made of one.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        short_edge: resize images to this shorter edge in pixels; None as in training.
        long_edge: bound of the longer edge. Where only one of the two is given, the other is
            scaled with it.
        amp: compute backbone and DyHead in half precision, `bf16` or `fp16`: faster on a GPU, and
            `bf16` on a CPU that has instructions for it.
        tile: also look at larger images in overlapping tiles of so many pixels; None for not.
        tile_overlap: the least share of its edge that a tile has in common with the next one;
            None for 0.2.
        tta: test-time augmentation, such as `flip` or `flip,0.8,1.2`: also look from left to right,
            and at other scales.

    Raises:
        CheckpointError: where the file is missing, damaged or of another kind.
        ConfigError: where the device is not there, or the shorter edge is the longer.
        ValueError: where an edge, tile, overlap or scale is out of range.
    """
    views = Views(tile=tile, tile_overlap=tile_overlap, tta=tta)
    require_edges(short_edge, long_edge)  # before a large file is read
    require_amp(amp)
    _, predictor = load_file(
        Path(path),
        device=choose_device(device),
        short_edge=short_edge,
        long_edge=long_edge,
        amp=amp,
        views=views,
    )
    return predictor


def load_file(
    path: Path,
    *,
    device: torch.device,
    short_edge: int | None,
    long_edge: int | None,
    amp: Amp,
    views: Views,
) -> tuple[Checkpoint, Predictor]:
    """Load a checkpoint or an ONNX file made of one; arguments and errors are those of `load`.

    Returns:
        What the file tells (an ONNX file all but weights), and its detector at work.
    """
    if is_onnx(path):
        if views.scales:
            raise ConfigError(f"{path}: an ONNX file has one size: no scales in --tta")
        checkpoint, predictor = _load_onnx(
            path, device=device, short_edge=short_edge, long_edge=long_edge, amp=amp
        )
    else:
        checkpoint = load_checkpoint(path)
        predictor = Predictor.from_checkpoint(
            checkpoint, device=device, short_edge=short_edge, long_edge=long_edge, amp=amp
        )
    settings = checkpoint.config.model.detector
    predictor.set_views(
        views, nms_thresh=settings.nms_thresh, detections_per_img=settings.detections_per_img
    )
    return checkpoint, predictor


def _load_onnx(
    path: Path, *, device: torch.device, short_edge: int | None, long_edge: int | None, amp: Amp
) -> tuple[Checkpoint, Predictor]:
    if amp != "off":
        raise ConfigError(
            f"{path}: an ONNX file computes in the precision that it was exported in: no --amp"
        )
    checkpoint, detector = load_onnx(path, short_edge=short_edge, long_edge=long_edge)
    if device.type != "cpu":
        logger.warning("%s runs on the CPU, whatever --device says", path)
    size = checkpoint.config.model.input
    return checkpoint, Predictor(
        detector,
        checkpoint.categories,
        device=torch.device("cpu"),
        runtime=checkpoint.config.runtime,
        resized_to=(size.short_edge, size.long_edge),
        min_scores=checkpoint.min_scores,
    )
