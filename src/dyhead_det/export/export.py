"""Checkpoint -> ONNX file, which is written only if it finds what the checkpoint finds."""

import importlib.util
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dyhead_det import __version__
from dyhead_det.checkpoints.checkpoint import Checkpoint, load_checkpoint
from dyhead_det.config.schema import RunConfig, to_plain
from dyhead_det.data.build_datasets import load_validation_data
from dyhead_det.distributed.device import images_to_device
from dyhead_det.errors import ConfigError, DatasetError, ExportError
from dyhead_det.escaping import printable
from dyhead_det.export.check import Agreement, compare, run_file
from dyhead_det.export.onnx_graph import add_metadata, write_graph
from dyhead_det.files import require_new, require_writable, written_whole
from dyhead_det.models.detectors import Detector
from dyhead_det.prediction.arguments import require_edges
from dyhead_det.prediction.images import as_image
from dyhead_det.prediction.predictor import Predictor, rebuild_detector

logger = logging.getLogger(__name__)

# How many validation images are looked at for one with objects in it.
NUM_TRIED_IMAGES = 20

DESCRIPTION = (
    "An object detector. Input: one RGB image (3, height, width) of any size, {pixels}. Outputs: "
    "boxes (N, 4), x1 y1 x2 y2 in pixels of that image; scores (N,) in [0, 1], best first; labels "
    "(N,), whose names are in the metadata `categories`."
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
    *,
    check_image: Path | None,
    takes_uint8: bool,
    short_edge: int | None,
    long_edge: int | None,
    overwrite: bool = False,
) -> ExportSummary:
    """Write a checkpoint as an ONNX file.

    Args:
        checkpoint: `best.pt` or `last.pt` of a run, or imported weights.
        out: the ONNX file; its name ends with `.onnx`.
        check_image: what file and checkpoint are compared on; None for one of the run's validation
            images, or noise where they are not at hand.
        takes_uint8: the file takes pixels in 0..255, not floats in [0, 1].
        short_edge: the file resizes images to this shorter edge; see `predictor.load`.
        long_edge: bound of the longer edge.
        overwrite: replace a file that is there.

    Raises:
        CheckpointError: if the checkpoint cannot be used.
        ConfigError: if `out` is there already, has another suffix or cannot be written.
        DatasetError: if `check_image` cannot be read.
        ExportError: if the detector cannot be exported, or the file finds something else. Nothing
            is written then.
    """
    require_packages()
    require_edges(short_edge, long_edge)
    if out.suffix.lower() != ".onnx":
        raise ConfigError(
            f"{out}: what is written is an ONNX file; give it a name that ends with .onnx (other "
            "programs, TensorRT too, make their own files from it)"
        )
    require_new(out, overwrite=overwrite)
    require_writable(out.parent, option="OUT")
    content = load_checkpoint(checkpoint)
    detector = rebuild_detector(content, short_edge=short_edge, long_edge=long_edge)
    predictor = Predictor(detector, content.categories, device=torch.device("cpu"))
    image, name = _choose_image(check_image, content.config, predictor)
    metadata = _metadata(content, detector, takes_uint8=takes_uint8)
    pixels = "uint8 in 0..255" if takes_uint8 else "float32 in [0, 1]"
    with written_whole(out) as unfinished:
        write_graph(detector, unfinished, _as_input(image, takes_uint8=takes_uint8))
        add_metadata(unfinished, metadata, description=DESCRIPTION.format(pixels=pixels))
        agreement = _check(unfinished, predictor, image, takes_uint8=takes_uint8)
        if not agreement.is_close:
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
    check_image: Path | None, config: RunConfig, predictor: Predictor
) -> tuple[Tensor, str]:
    """Return an image (3, H, W) uint8, with objects in it if there is one, and its name."""
    candidates: Iterable[tuple[Tensor, str]] = _default_images(config)
    if check_image is not None:
        candidates = [(as_image(check_image), str(check_image))]
    for image, name in candidates:
        if predictor.predict(image, min_score=0):
            return image, name
    logger.warning(
        "the checkpoint finds nothing in %s: the check can only tell that the ONNX file finds "
        "nothing either; give a picture with objects by --check-image",
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
            path = dataset.path(index)
            try:
                yield as_image(path), str(path)
            except DatasetError as error:
                logger.warning("not looked at: %s", error)
    size = (3, config.model.input.short_edge, config.model.input.long_edge)
    generator = torch.Generator().manual_seed(0)
    yield torch.randint(256, size, generator=generator, dtype=torch.uint8), "noise"


def _as_input(image: Tensor, *, takes_uint8: bool) -> Tensor:
    return image if takes_uint8 else images_to_device([image], torch.device("cpu"))[0]


def _check(path: Path, predictor: Predictor, image: Tensor, *, takes_uint8: bool) -> Agreement:
    """Compare on an image, and on a part of it that is as high as it was wide.

    The second has another size and another proportion: that sizes were recorded as constants would
    not show in the first.
    """
    turned = image.transpose(1, 2)[:, :, : max(1, 2 * image.shape[1] // 3)].contiguous()
    images = (image, turned)
    outputs_of_file = run_file(path, [_as_input(each, takes_uint8=takes_uint8) for each in images])
    first, second = (
        compare(predictor.predict(each, min_score=0), *outputs)
        for each, outputs in zip(images, outputs_of_file, strict=True)
    )
    return first + second


def _metadata(content: Checkpoint, detector: Detector, *, takes_uint8: bool) -> dict[str, str]:
    """Return what a user of the file needs to know, as JSON by name."""
    resizing = {
        **to_plain(content.config.model.input),
        "short_edge": detector.transform.min_size[-1],
        "long_edge": detector.transform.max_size,
        "pixels": "uint8" if takes_uint8 else "float32",
    }
    return {
        "categories": json.dumps(content.categories.to_plain()),
        "input": json.dumps(resizing),
        "model": json.dumps(to_plain(content.config.model)),
        "dyhead_det_version": json.dumps(__version__),
    }
