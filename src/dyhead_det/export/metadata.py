"""What an ONNX file says of itself: classes, sizes, precision, versions."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from dyhead_det import __version__
from dyhead_det.checkpoints.checkpoint import Checkpoint
from dyhead_det.config.schema import to_plain
from dyhead_det.export.options import ExportOptions
from dyhead_det.models.detectors import Detector


def describe_file(
    content: Checkpoint, detector: Detector, options: ExportOptions
) -> dict[str, str]:
    """Return what a user of the file needs to know, as JSON by name.

    Args:
        content: whose weights the file has.
        detector: with the sizes that the file resizes images to.
        options: what kind of file it is.
    """
    resizing = {
        **to_plain(content.config.model.input),
        "short_edge": detector.transform.min_size[-1],
        "long_edge": detector.transform.max_size,
        "pixels": "uint8" if options.takes_uint8 else "float32",
    }
    kind = {"batch": options.batch, "precision": options.precision, "deform": options.deform}
    versions = {name: version(name) for name in ("torch", "torchvision", "onnx")}
    texts = {
        "categories": content.categories.to_plain(),
        "input": resizing,
        "model": to_plain(content.config.model),
        "export": kind,
        "dyhead_det_version": __version__,
        "versions": versions,
    }
    return {name: json.dumps(text) for name, text in texts.items()}


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
