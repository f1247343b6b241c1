"""An exported detector in onnxruntime: arrays in, boxes, scores and labels out, without PyTorch."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dyhead_det.errors import ExportError

Array = NDArray[np.generic]
Found = tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.integer]]
"""Boxes (N, 4), scores (N,) and labels (N,) of an image."""

OUTPUTS, COUNT = ("boxes", "scores", "labels"), "num_detections"


class OnnxSession:
    """A file that `dyhead-det export` wrote, loaded.

    Attributes:
        metadata: Texts by name.
        takes_uint8: Whether pixels are 0..255 instead of floats in [0, 1].
        batch: None for a file of single images, else how many it takes, or ``dynamic``.
    """

    def __init__(self, path: Path, *, num_threads: int = 0) -> None:
        """Load a file.

        Args:
            path: An ONNX file.
            num_threads: To compute with; 0 leaves it to onnxruntime.

        Raises:
            ExportError: If onnxruntime cannot load it.
        """
        import onnxruntime  # noqa: PLC0415 - an extra

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # nothing beside the error below
        options.intra_op_num_threads = num_threads
        self._version = onnxruntime.__version__
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors have no other base in common
            raise self._failure(error) from error
        (self._input, *_) = self._session.get_inputs()
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        self.takes_uint8: bool = self._input.type == "tensor(uint8)"
        shape = self._input.shape
        self.batch: int | str | None = None if len(shape) == 3 else shape[0]

    def detect(self, images: Sequence[Array]) -> list[Found]:
        """Find objects.

        Args:
            images: (3, H, W) each, of the type that the file takes, of any sizes.

        Returns:
            What is in each; boxes in pixels of the image that was given, best first.

        Raises:
            ExportError: If onnxruntime cannot run the file.
        """
        if self.batch is None:
            return [(boxes, *rest) for boxes, *rest in map(self._run, images)]
        found: list[Found] = []
        for _, same_size in groupby(images, key=lambda image: image.shape):
            stacked = np.stack(list(same_size))
            size = self.batch if isinstance(self.batch, int) else len(stacked)
            for start in range(0, len(stacked), size):
                found += self._run_batch(stacked[start : start + size], size)
        return found

    def _run_batch(self, images: Array, size: int) -> list[Found]:
        """Run (B, 3, H, W), filled up to the size that the file takes by its last image."""
        missing = size - len(images)
        filled = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])
        boxes, scores, labels, counts = self._run(filled)
        return [
            (boxes[i, :count], scores[i, :count], labels[i, :count])
            for i, count in enumerate(counts[: len(images)])
        ]

    def _run(self, array: Array) -> list[Any]:
        names = [*OUTPUTS, *([] if self.batch is None else [COUNT])]
        try:
            results: list[Any] = self._session.run(names, {self._input.name: array})
        except Exception as error:  # onnxruntime's errors have no other base in common
            raise self._failure(error) from error
        return results

    def _failure(self, error: Exception) -> ExportError:
        reason: Any = str(error).strip().partition("\n")[0]
        return ExportError(
            f"onnxruntime {self._version} (1.25 or newer is needed) cannot run the exported "
            f"detector: {reason}"
        )
