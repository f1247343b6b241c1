"""What an ONNX file says of itself: classes, sizes, precision, versions."""

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from dyhead_det import __version__
from dyhead_det.checkpoints.checkpoint import Checkpoint, content_of
from dyhead_det.config.schema import to_plain
from dyhead_det.export.options import ExportOptions
from dyhead_det.models.detectors import Detector
from dyhead_det.prediction.onnx_detector import CHECKPOINT_KEY, SOURCE_KEY, sha256


def describe_file(
    checkpoint: Path, content: Checkpoint, detector: Detector, options: ExportOptions
) -> dict[str, str]:
    """Return what a user of the file needs to know, as JSON by name.

    Args:
        checkpoint: the file of the checkpoint.
        content: what is in it, whose weights the file has.
        detector: with the sizes that the file resizes images to.
        options: what kind of file it is.
    """
    edges = {
        "short_edge": detector.transform.min_size[-1],
        "long_edge": detector.transform.max_size,
    }
    resizing = {
        **to_plain(content.config.model.input),
        **edges,
        "pixels": "uint8" if options.takes_uint8 else "float32",
    }
    # As in a checkpoint, so that what reads one reads the file, too.
    without_weights = {**content_of(content), "model": {}, "training": None}
    without_weights["config"]["model"]["input"].update(edges)
    kind = {"batch": options.batch, "precision": options.precision, "deform": options.deform}
    texts = {
        **describe_source(checkpoint, content, packages=("torch", "torchvision", "onnx")),
        "input": resizing,
        "export": kind,
        CHECKPOINT_KEY: without_weights,
    }
    return {name: json.dumps(text) for name, text in texts.items()}


def describe_source(
    checkpoint: Path, content: Checkpoint, *, packages: Sequence[str]
) -> dict[str, object]:
    """Return what any file says of the checkpoint and the programs that it was made of, by name."""
    return {
        "categories": content.categories.to_plain(),
        "model": to_plain(content.config.model),
        SOURCE_KEY: {"name": checkpoint.name, "sha256": sha256(checkpoint)},
        "dyhead_det_version": __version__,
        "versions": {name: version(name) for name in packages},
    }


def add_metadata(path: Path, texts: Mapping[str, str], *, description: str) -> None:
    """Write texts by name into an ONNX file, and what it is.

    Args:
        path: the file.
        texts: what a runtime shows as its custom metadata.
        description: for people.
    """
    import onnx  # noqa: PLC0415 - an extra

    model = onnx.load(path)
    model.doc_string = description
    onnx.helper.set_model_props(model, dict(texts))
    onnx.save(model, path)
