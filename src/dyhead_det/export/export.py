"""Checkpoint -> ONNX file, which is written only if it finds what the checkpoint finds."""

import importlib.util
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from dyhead_det.checkpoints.checkpoint import load_checkpoint
from dyhead_det.config.schema import RunConfig
from dyhead_det.data.build_datasets import load_validation_data
from dyhead_det.data.images import read_image
from dyhead_det.distributed.device import images_to_device
from dyhead_det.errors import ConfigError, DatasetError, ExportError
from dyhead_det.escaping import printable
from dyhead_det.export.batch_graph import BATCH_INPUT, write_batch_graph
from dyhead_det.export.check import TOLERANCES, Agreement, Tolerance, compare, run_file
from dyhead_det.export.half import to_half
from dyhead_det.export.metadata import add_metadata, describe_file
from dyhead_det.export.onnx_graph import INPUT, exportable, write_graph
from dyhead_det.export.options import ExportOptions
from dyhead_det.export.quantize import NUM_CALIBRATION_IMAGES, quantize
from dyhead_det.files import require_new, require_writable, written_whole
from dyhead_det.models.detectors import Detector
from dyhead_det.prediction.arguments import require_edges
from dyhead_det.prediction.images import as_image
from dyhead_det.prediction.predictor import Predictor
from dyhead_det.prediction.rebuilding import rebuild_detector
from dyhead_det.prediction.sources.files import find_images

logger = logging.getLogger(__name__)

# How many validation images are looked at for one with objects in it.
NUM_TRIED_IMAGES = 20

ONE_IMAGE = (
    "An object detector. Input: one RGB image (3, height, width) of any size, {pixels}. Outputs: "
    "boxes (N, 4), x1 y1 x2 y2 in pixels of that image; scores (N,) in [0, 1], best first; labels "
    "(N,), whose names are in the metadata `categories`."
)
MANY_IMAGES = (
    "An object detector. Input: RGB images (B, 3, height, width) of one size, any, {pixels}. "
    "Outputs: num_detections (B,), the number N of objects of each image; boxes (B, D, 4), x1 y1 "
    "x2 y2 in pixels of the images; scores (B, D) in [0, 1], best first; labels (B, D), whose "
    "names are in the metadata `categories`; behind the first N rows of an image, labels are -1."
)


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What was written and how it was checked.

    num_bytes: size of the file.
    image: what the check looked at.
    agreement: of file and checkpoint on that image.
    """

    path: Path
    num_bytes: int
    image: str
    agreement: Agreement

    def __str__(self) -> str:
        """Report it in two lines."""
        return (
            f"{self.path}: {self.num_bytes / 1e6:.1f} MB\n"
            f"same as the checkpoint on {printable(self.image)}: {self.agreement}"
        )


def export(
    checkpoint: Path,
    out: Path,
    options: ExportOptions,
    *,
    check_image: Path | None = None,
    overwrite: bool = False,
) -> ExportSummary:
    """Write a checkpoint as an ONNX file.

    Args:
        checkpoint: `best.pt` or `last.pt` of a run, or imported weights.
        out: the ONNX file; its name ends with `.onnx`.
        options: what kind of file.
        check_image: what file and checkpoint are compared on; None for one of the run's validation
            images, or noise where they are not at hand.
        overwrite: replace a file that is there.

    Raises:
        CheckpointError: if the checkpoint cannot be used.
        ConfigError: if options exclude each other, or `out` is there already, has another suffix
            or cannot be written.
        DatasetError: if `check_image` or the images to calibrate on cannot be read.
        ExportError: if the detector cannot be exported, or the file finds something else. Nothing
            is written then.
    """
    require_packages()
    options.require_possible()
    require_edges(options.short_edge, options.long_edge)
    if out.suffix.lower() != ".onnx":
        raise ConfigError(
            f"{out}: what is written is an ONNX file; give it a name that ends with .onnx (other "
            "programs, TensorRT too, make their own files from it), or with .pt2 for backbone, FPN "
            "and DyHead by torch.export"
        )
    require_new(out, overwrite=overwrite)
    require_writable(out.parent, option="OUT")
    content = load_checkpoint(checkpoint)
    detector = rebuild_detector(content, short_edge=options.short_edge, long_edge=options.long_edge)
    predictor = Predictor(detector, content.categories, device=torch.device("cpu"))
    tolerance = TOLERANCES[options.precision]
    image, name = _choose_image(check_image, content.config, predictor, tolerance)
    with written_whole(out) as unfinished:
        _write(detector, unfinished, image, options)
        pixels = "uint8 in 0..255" if options.takes_uint8 else "float32 in [0, 1]"
        description = ONE_IMAGE if options.batch is None else MANY_IMAGES
        add_metadata(
            unfinished,
            describe_file(checkpoint, content, detector, options),
            description=description.format(pixels=pixels),
        )
        agreement = _check(unfinished, predictor, image, options)
        if not agreement.is_within(tolerance):
            raise ExportError(
                f"{out} was not written: it does not find what {checkpoint} finds in {name} "
                f"({agreement}); sizes may matter, try --short-edge and --long-edge"
            )
        num_bytes = unfinished.stat().st_size
    return ExportSummary(out, num_bytes, name, agreement)


def require_packages() -> None:
    """Refuse to begin without the packages of the extra.

    Raises:
        ExportError: if one is missing.
    """
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f"export needs {' and '.join(missing)}: pip install 'dyhead-det[export]'")


def _choose_image(
    check_image: Path | None, config: RunConfig, predictor: Predictor, tolerance: Tolerance
) -> tuple[Tensor, str]:
    """Return an image (3, H, W) uint8, with objects in it if there is one, and its name."""
    candidates: Iterable[tuple[Tensor, str]] = _default_images(config)
    if check_image is not None:
        candidates = [(as_image(check_image), str(check_image))]
    for image, name in candidates:
        if predictor.predict(image, min_score=tolerance.min_score):
            return image, name
    logger.warning(
        "the checkpoint finds nothing%s in %s: the check can only tell that the ONNX file finds "
        "nothing either; give a picture with objects by --check-image",
        f" that scores {tolerance.min_score:g}" if tolerance.min_score else "",
        name,
    )
    return image, name


def _default_images(config: RunConfig) -> Iterator[tuple[Tensor, str]]:
    """Yield validation images, and noise at the end."""
    try:
        dataset = load_validation_data(config.data)
    except DatasetError:  # the data of the run are elsewhere
        dataset = None
    if dataset is not None:
        for index in range(min(NUM_TRIED_IMAGES, len(dataset))):
            file = dataset.image_file(index)
            try:
                yield read_image(file), str(file)
            except DatasetError as error:
                logger.warning("not looked at: %s", error)
    size = (3, config.model.input.short_edge, config.model.input.long_edge)
    generator = torch.Generator().manual_seed(0)
    yield torch.randint(256, size, generator=generator, dtype=torch.uint8), "noise"


def _write(detector: Detector, path: Path, image: Tensor, options: ExportOptions) -> None:
    """Write the graph, without metadata."""
    recorded = exportable(detector, options.deform)
    if options.half:
        to_half(recorded)
    given = _as_input(image, options)
    if options.batch is None:
        write_graph(recorded, path, given)
    else:
        write_batch_graph(recorded, path, given, options.batch)
    if options.int8 is not None:
        quantize(
            path,
            path,
            _calibration_inputs(options.int8, options),
            input_name=INPUT if options.batch is None else BATCH_INPUT,
        )


def _calibration_inputs(folder: Path, options: ExportOptions) -> Iterator[NDArray[np.generic]]:
    """Yield what the file takes, made of images evenly spread over a folder."""
    sources = find_images([folder], except_in=Path(os.devnull))
    step = max(1, len(sources) // NUM_CALIBRATION_IMAGES)
    chosen = sources[::step][:NUM_CALIBRATION_IMAGES]
    for source in tqdm(chosen, desc="calibration", unit="image", leave=False, disable=None):
        image = _as_input(read_image(source.path), options).numpy()
        if options.batch is None:
            yield image
        else:
            size = 1 if options.batch == "dynamic" else options.batch
            yield np.repeat(image[None], size, axis=0)


def _as_input(image: Tensor, options: ExportOptions) -> Tensor:
    return image if options.takes_uint8 else images_to_device([image], torch.device("cpu"))[0]


def _check(path: Path, predictor: Predictor, image: Tensor, options: ExportOptions) -> Agreement:
    """Compare on an image, and on a part of it that is as high as it was wide.

    The second has another size and another proportion: that sizes were recorded as constants would
    not show in the first. A batch has each of them upside down, too.
    """
    turned = image.transpose(1, 2)[:, :, : max(1, 2 * image.shape[1] // 3)].contiguous()
    images = [image, turned]
    if options.batch is not None:
        images = [each for image in images for each in (image, image.flip(1))]
    outputs_of_file = run_file(path, [_as_input(each, options) for each in images])
    tolerance = TOLERANCES[options.precision]
    agreements = [
        compare(predictor.predict(each, min_score=0), *outputs, tolerance)
        for each, outputs in zip(images, outputs_of_file, strict=True)
    ]
    return sum(agreements[1:], start=agreements[0])
