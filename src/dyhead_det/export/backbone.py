"""Checkpoint -> backbone, FPN and DyHead as a file of torch.export, written only if it agrees."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path

from dyhead_det.checkpoints.checkpoint import load_checkpoint
from dyhead_det.config.schema import to_plain
from dyhead_det.errors import ConfigError, ExportError
from dyhead_det.export.exported_program import (
    LEAST_SIDE,
    TOLERANCE,
    measure_difference,
    recordable,
    write_program,
)
from dyhead_det.export.metadata import describe_source
from dyhead_det.export.onnx_graph import exportable
from dyhead_det.export.options import ExportOptions
from dyhead_det.files import require_new, require_writable, written_whole
from dyhead_det.prediction.rebuilding import rebuild_detector

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BackboneSummary:
    """What was written and how it was checked.

    num_bytes: size of the file; difference: of its maps and the checkpoint's, at most, by their
    largest value.
    """

    path: Path
    num_bytes: int
    difference: float

    def __str__(self) -> str:
        """Report it in two lines."""
        return (
            f"{self.path}: {self.num_bytes / 1e6:.1f} MB, backbone with FPN and DyHead\n"
            f"same maps as the checkpoint at two sizes: within {self.difference:.1g} of the largest"
        )


def export_backbone(
    checkpoint: Path, out: Path, options: ExportOptions, *, overwrite: bool = False
) -> BackboneSummary:
    """Write backbone, FPN and DyHead of a checkpoint as a file of torch.export.

    Args:
        checkpoint: `best.pt` or `last.pt` of a run, or imported weights.
        out: the file; its name ends with `.pt2`.
        options: of which only `deform` may differ from the default.
        overwrite: replace a file that is there.

    Raises:
        CheckpointError: if the checkpoint cannot be used.
        ConfigError: if an option is for ONNX files, or `out` is there already or cannot be written.
        ExportError: if the backbone cannot be recorded, or the file computes something else.
            Nothing is written then.
    """
    if options != ExportOptions(deform=options.deform):
        raise ConfigError(
            f"{out}: of the options for ONNX files a .pt2 file, which holds backbone, FPN and "
            "DyHead alone, takes --deform only"
        )
    require_new(out, overwrite=overwrite)
    require_writable(out.parent, option="OUT")
    content = load_checkpoint(checkpoint)
    detector = rebuild_detector(content, short_edge=None, long_edge=None).eval()
    backbone = recordable(exportable(detector, options.deform).backbone)
    strides = detector.spec.levels.strides
    size_divisible = math.lcm(detector.transform.size_divisible, strides[-1])
    metadata = {
        **describe_source(checkpoint, content, packages=("torch", "torchvision")),
        "levels": dict(zip(detector.spec.levels.names, strides, strict=True)),
        "input": {
            **to_plain(content.config.model.input),
            "size_divisible": size_divisible,
            "least_side": LEAST_SIDE * size_divisible,
        },
    }
    logger.info("recording the backbone, which takes from half a minute to some minutes")
    with written_whole(out) as unfinished:
        write_program(backbone, unfinished, size_divisible=size_divisible, metadata=metadata)
        difference = measure_difference(
            unfinished, detector.backbone, size_divisible=size_divisible
        )
        if not difference <= TOLERANCE:
            raise ExportError(
                f"{out} was not written: its maps differ from those of {checkpoint} by "
                f"{difference:.1g} of the largest value"
            )
        num_bytes = unfinished.stat().st_size
    return BackboneSummary(out, num_bytes, difference)
