"""An exported ONNX file in place of a checkpoint's detector: called like it, run by onnxruntime."""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from dyhead_det.checkpoints.checkpoint import Checkpoint, parse_checkpoint
from dyhead_det.contracts import Prediction
from dyhead_det.errors import CheckpointError, ConfigError
from dyhead_det.files import open_file
from dyhead_det.prediction.onnx_session import OnnxSession

logger = logging.getLogger(__name__)

# What `export` writes into its files: a checkpoint without weights, and whose weights these are.
CHECKPOINT_KEY, SOURCE_KEY = "checkpoint", "made_of"


def is_onnx(path: Path) -> bool:
    """Whether a file is called as ONNX files are."""
    return path.suffix.lower() == ".onnx"


class OnnxDetector(nn.Module):
    """Images to predictions by onnxruntime, on the CPU.

    Args:
        session: an exported file.
        num_classes: K.
        digest: tells its weights from those of other files.
    """

    def __init__(self, session: OnnxSession, num_classes: int, digest: Tensor) -> None:
        super().__init__()
        self.session = session
        self.num_classes = num_classes
        # Stands for the weights wherever detectors are told apart by theirs.
        self.register_buffer("digest", digest)

    def forward(self, images: Sequence[Tensor]) -> list[Prediction]:
        """Return one prediction per image, in the image's own pixels, best first.

        Args:
            images: (3, H, W) each, float RGB in [0, 1], of any sizes.

        Raises:
            CheckpointError: if the file finds a class that it has not.
            ExportError: if onnxruntime cannot run it.
        """
        if self.session.takes_uint8:
            images = [(image * 255).round().to(torch.uint8) for image in images]
        predictions = []
        for found in self.session.detect([image.numpy() for image in images]):
            boxes, scores, labels = (torch.from_numpy(each.copy()) for each in found)
            if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
                raise CheckpointError("the ONNX file finds classes whose names it does not have")
            predictions.append(Prediction(boxes=boxes, scores=scores, labels=labels))
        return predictions


def load_onnx(
    path: Path, *, short_edge: int | None, long_edge: int | None
) -> tuple[Checkpoint, OnnxDetector]:
    """Load a file that `dyhead-det export` wrote.

    Args:
        path: the file.
        short_edge: None; the file resizes images as it was exported.
        long_edge: None.

    Returns:
        All that a checkpoint tells, but weights; and the detector.

    Raises:
        CheckpointError: if it is of another program, or of a version that knew less.
        ConfigError: if an edge is given.
        ExportError: if onnxruntime cannot load it.
    """
    if (short_edge, long_edge) != (None, None):
        raise ConfigError(
            f"{path}: an ONNX file resizes images as it was exported; export it with --short-edge "
            "and --long-edge"
        )
    digest = torch.tensor(list(bytes.fromhex(sha256(path))))
    session = OnnxSession(path, num_threads=torch.get_num_threads())
    text = session.metadata.get(CHECKPOINT_KEY)
    if text is None:
        raise CheckpointError(
            f"{path}: refused, `dyhead-det export` of this version did not write it; export the "
            "checkpoint again"
        )
    try:
        content = {**json.loads(text), "model": {"digest": digest}}
        made_of = json.loads(session.metadata.get(SOURCE_KEY, "{}"))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: its metadata are damaged ({error})") from error
    checkpoint = parse_checkpoint(content, source=str(path))
    _warn_if_stale(path, made_of)
    return checkpoint, OnnxDetector(session, len(checkpoint.categories), digest)


def _warn_if_stale(path: Path, made_of: dict[str, str]) -> None:
    """Warn where the checkpoint that a file was made of lies beside it and has changed since."""
    beside = path.parent / Path(str(made_of.get("name", ""))).name
    if beside.is_file() and sha256(beside) != made_of.get("sha256"):
        logger.warning(
            "%s was made of another %s than the one beside it: export it again", path, beside.name
        )


def sha256(path: Path) -> str:
    """Return the checksum of a file in hexadecimal digits.

    Raises:
        CheckpointError: if it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open_file(path) as file:
            while chunk := file.read(2**20):
                digest.update(chunk)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()
