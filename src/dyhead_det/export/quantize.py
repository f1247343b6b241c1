"""8-bit weights and maps: onnxruntime's static quantization, with ranges measured on images.

Convolutions and matrix products are quantized, each channel of a weight by a factor of its own.
Left in float are the last layers of the heads (on blood cells AP .408 instead of .406, .415
without quantization) and all that onnxruntime has no 8-bit form of: deformable convolutions, norms,
resizing, the sampling and suppression of boxes; also what lies in the loop of a batch's file.
"""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from dyhead_det.errors import ExportError

QUANTIZED = ["Conv", "Gemm", "MatMul"]
# As layers are called in ours and in torchvision's heads; a node's name holds that of its layer.
LAST_LAYERS = ("cls_logits", "bbox_reg", "bbox_ctrness", "cls_score", "bbox_pred")
NUM_CALIBRATION_IMAGES = 32


def quantize(
    path: Path, out: Path, inputs: Iterable[NDArray[np.generic]], *, input_name: str
) -> None:
    """Write an 8-bit form of an ONNX file.

    Args:
        path: a file in float32.
        out: the file to write.
        inputs: what the file takes, to measure on; some ten.
        input_name: how it calls that.

    Raises:
        ExportError: if onnxruntime cannot quantize the file.
    """
    import onnx  # noqa: PLC0415 - an extra
    from onnxruntime import quantization  # noqa: PLC0415 - an extra
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # untyped base
        def __init__(self) -> None:
            self.arrays: Iterator[NDArray[np.generic]] = iter(inputs)

        def get_next(self) -> dict[str, NDArray[np.generic]] | None:
            array = next(self.arrays, None)
            return None if array is None else {input_name: array}

    level = logging.root.level
    with TemporaryDirectory(dir=path.parent) as folder:
        prepared = Path(folder) / "prepared.onnx"
        try:
            quant_pre_process(path, prepared, skip_symbolic_shape=True)
            nodes = onnx.load(prepared).graph.node
            quantization.quantize_static(
                prepared,
                out,
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=QUANTIZED,
                nodes_to_exclude=[
                    node.name for node in nodes if any(layer in node.name for layer in LAST_LAYERS)
                ],
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
        except (RuntimeError, ValueError, TypeError, KeyError, IndexError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ExportError(f"onnxruntime cannot quantize this detector: {reason}") from error
        finally:
            logging.root.setLevel(level)
