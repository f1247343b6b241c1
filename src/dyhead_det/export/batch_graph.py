"""A graph for a batch of images: backbone and dense head for all, the rest in a loop over images.

How many boxes pass a threshold differs from image to image, so that a recording of one batch holds
for no other. So two graphs are recorded: what is alike for all images (resizing, backbone, FPN,
DyHead, the head of a one-stage detector), and what makes one image's objects of that. ONNX's `Loop`
runs the second once per image; what it finds is padded to the most that the detector returns.
"""

import copy
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from dyhead_det.export.onnx_graph import INPUT, as_float, record
from dyhead_det.export.options import Batch
from dyhead_det.models.detectors import Detector
from dyhead_det.prediction.onnx_session import COUNT, OUTPUTS

BATCH_INPUT = "images"
NO_LABEL = -1
"""The label of the rows behind an image's objects."""
EACH = "each/"
# What the heads of one-stage detectors return, in order of names; RetinaNet has no centerness.
RAW_RESULTS = ("bbox_ctrness", "bbox_regression", "cls_logits")


def write_batch_graph(detector: Detector, path: Path, image: Tensor, batch: Batch) -> None:
    """Write an ONNX file for batches of images of one size.

    Args:
        detector: in evaluation mode, on the CPU, as `exportable` returns it.
        path: the file to write.
        image: what is recorded, (3, H, W).
        batch: how many images the file takes.

    Raises:
        ExportError: if the detector has an operator that ONNX or the exporter does not know.
    """
    import onnx  # noqa: PLC0415 - an extra

    shared = SharedPart(detector)
    with torch.no_grad():
        tensors = shared(image[None])  # of one: not while recorded, some resizing takes 3 channels
    names = [f"shared_{index}" for index in range(len(tensors))]
    sizes = {name: _axes_of_any_size(each, name) for name, each in zip(names, tensors, strict=True)}
    with TemporaryDirectory(dir=path.parent) as folder:
        shared_path, each_path = (Path(folder) / name for name in ("shared.onnx", "each.onnx"))
        record(
            shared,
            (torch.stack([image, image]),),
            shared_path,
            inputs={BATCH_INPUT: {0: "batch", 2: "height", 3: "width"}},
            outputs={name: {0: "batch", **axes} for name, axes in sizes.items()},
        )
        record(
            EachImage(detector, shared.map_names),
            (image, *tensors),
            each_path,
            inputs={INPUT: {1: "height", 2: "width"}, **sizes},
            outputs={name: {} for name in (*OUTPUTS, COUNT)},
        )
        model = with_loop(onnx.load(shared_path), onnx.load(each_path), batch)
    onnx.checker.check_model(model)
    onnx.save(model, path)


class SharedPart(nn.Module):
    """What is alike for all images of a batch.

    Attributes:
        map_names: Of the levels of the pyramid, once it was called.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.network = detector.network
        self.map_names: list[str] = []

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the maps of the pyramid, and the raw results of a dense head in order of names.

        Args:
            images: (B, 3, H, W) RGB, uint8 in 0..255 or float32 in [0, 1].
        """
        network: Any = self.network
        transform = network.transform
        normalized = transform.normalize(as_float(images))
        # One image of 3 B channels: nothing in resizing and padding looks at their number.
        resized, _ = transform.resize(normalized.flatten(0, 1))
        padded = transform.batch_images([resized], size_divisible=transform.size_divisible)
        maps = network.backbone(padded.view(-1, 3, *padded.shape[-2:]))
        self.map_names = list(maps)
        raw = network.head(list(maps.values())) if hasattr(network, "head") else {}
        return *maps.values(), *(raw[name] for name in sorted(raw))


class EachImage(nn.Module):
    """What makes the objects of one image of what `SharedPart` returns."""

    def __init__(self, detector: Detector, map_names: Sequence[str]) -> None:
        super().__init__()
        self.detector = copy.deepcopy(detector)
        network: Any = self.detector.network
        self.map_names = map_names
        two_stages = hasattr(network, "roi_heads")
        self.most: int = (network.roi_heads if two_stages else network).detections_per_img
        self.backbone = network.backbone = Given()
        self.head: Given | None = None
        if not two_stages:
            self.head = network.head = Given()

    def forward(self, image: Tensor, *shared: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return boxes (D, 4), scores (D,), labels (D,), and how many of the D are objects.

        Args:
            image: (3, H, W), whose size is all that counts.
            shared: that image's part of each tensor, with an axis of one image.
        """
        num_maps = len(self.map_names)
        self.backbone.value = OrderedDict(zip(self.map_names, shared[:num_maps], strict=True))
        if self.head is not None:
            names = RAW_RESULTS[-(len(shared) - num_maps) :]
            self.head.value = dict(zip(names, shared[num_maps:], strict=True))
        (prediction,) = self.detector([as_float(image)])
        boxes, scores, labels = (prediction[name] for name in OUTPUTS)
        count = torch.ones_like(labels).sum()
        nothing = boxes.new_zeros(self.most, 4)
        return (
            torch.cat([boxes, nothing])[: self.most],
            torch.cat([scores, nothing[:, 0]])[: self.most],
            torch.cat([labels, torch.full((self.most,), NO_LABEL)])[: self.most],
            count,
        )


class Given(nn.Module):
    """Returns what it was given, whatever it is called with."""

    value: object = None

    def forward(self, *_: object) -> object:
        """Return it."""
        return self.value


def _axes_of_any_size(tensor: Tensor, name: str) -> dict[int, str]:
    """Name the axes of a map (1, C, H, W), or of raw results (1, A, K), that images decide."""
    axes = (2, 3) if tensor.dim() == 4 else (1,)
    return {axis: f"{name}_axis_{axis}" for axis in axes}


def with_loop(shared: Any, each: Any, batch: Batch) -> Any:  # noqa: ANN401 - onnx is an extra
    """Put two models together: the first, then the second for each image.

    Args:
        shared: from images to tensors, the first axis of all being the images.
        each: from an image and its part of these tensors to results of one size.
        batch: how many images the model takes.

    Returns:
        A model from images to results of all of them.
    """
    from onnx import TensorProto, compose, helper  # noqa: PLC0415 - an extra

    each = compose.add_prefix(each, EACH)
    image_input = each.graph.input[0]
    sources = [BATCH_INPUT, *(value.name for value in shared.graph.output)]
    body_nodes = [helper.make_node("Unsqueeze", [f"{EACH}index", f"{EACH}axis"], [f"{EACH}here"])]
    for source, value in zip(sources, each.graph.input, strict=True):
        index = f"{EACH}index" if value is image_input else f"{EACH}here"  # which keeps the axis
        body_nodes.append(helper.make_node("Gather", [source, index], [value.name], axis=0))
    body_nodes.append(helper.make_node("Identity", [f"{EACH}go_on"], [f"{EACH}goes_on"]))
    scalar: dict[str, list[int]] = {"shape": []}
    body = helper.make_graph(
        [*body_nodes, *each.graph.node],
        "each_image",
        [
            helper.make_tensor_value_info(f"{EACH}index", TensorProto.INT64, **scalar),
            helper.make_tensor_value_info(f"{EACH}go_on", TensorProto.BOOL, **scalar),
        ],
        [
            helper.make_tensor_value_info(f"{EACH}goes_on", TensorProto.BOOL, **scalar),
            *each.graph.output,
        ],
        [*each.graph.initializer, helper.make_tensor(f"{EACH}axis", TensorProto.INT64, [1], [0])],
    )
    results = [value.name.removeprefix(EACH) for value in each.graph.output]
    number = [
        helper.make_node("Shape", [BATCH_INPUT], ["batch_shape"], start=0, end=1),
        helper.make_node("Squeeze", ["batch_shape"], ["num_images"]),
        helper.make_node("Loop", ["num_images", ""], results, body=body),
    ]
    shared.graph.node.extend(number)
    del shared.graph.output[:]
    size = "batch" if batch == "dynamic" else batch
    shared.graph.input[0].type.tensor_type.shape.dim[0].CopyFrom(_dimension(size))
    for name, value in zip(results, each.graph.output, strict=True):
        kind = value.type.tensor_type
        shape = [size, *(dim.dim_value for dim in kind.shape.dim)]
        shared.graph.output.append(helper.make_tensor_value_info(name, kind.elem_type, shape))
    return shared


def _dimension(size: int | str) -> Any:  # noqa: ANN401 - onnx is an extra
    from onnx import TensorShapeProto  # noqa: PLC0415 - an extra

    key = "dim_param" if isinstance(size, str) else "dim_value"
    return TensorShapeProto.Dimension(**{key: size})
