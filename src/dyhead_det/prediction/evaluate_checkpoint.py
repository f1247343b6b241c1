"""`eval`: a checkpoint and a data set in, the COCO numbers and the detections out."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import torch

from dyhead_det.checkpoints.checkpoint import Checkpoint
from dyhead_det.config.precision import Amp
from dyhead_det.data.build_datasets import load_evaluation_data
from dyhead_det.data.build_loaders import evaluation_loader
from dyhead_det.data.coco.dataset import CocoDataset
from dyhead_det.data.statistics import fingerprint
from dyhead_det.data.stores.locate import image_location
from dyhead_det.distributed.agreement import require_agreement
from dyhead_det.distributed.launch import init_process_group
from dyhead_det.distributed.rank_zero import local_main_first, main_only
from dyhead_det.errors import DatasetError
from dyhead_det.evaluation.backends import Backend
from dyhead_det.evaluation.coco_scores import EvalResult
from dyhead_det.evaluation.evaluate import evaluate_detector, write_results
from dyhead_det.files import require_writable
from dyhead_det.models.runtime import pytorch_switches
from dyhead_det.prediction.arguments import (
    MAX_BATCH_SIZE,
    MAX_DETECTIONS,
    Views,
    require_amp,
    require_count,
    require_edges,
)
from dyhead_det.prediction.load import load_file


def evaluate_checkpoint(
    path: Path | str,
    out: Path | str | None = None,
    *,
    data: Path | str | None = None,
    images: Path | str | None = None,
    backend: Backend | None = None,
    batch_size: int | None = None,
    max_detections: int | None = None,
    broken_images: Literal["error", "skip"] | None = None,
    amp: Amp = "off",
    tta: str = "",
    short_edge: int | None = None,
    long_edge: int | None = None,
    device: torch.device | str = "auto",
    show: Callable[[EvalResult], None] = lambda _result: None,
    explain: Callable[[EvalResult, CocoDataset], None] | None = None,
) -> EvalResult:
    """Evaluate a checkpoint; write `metrics.json` and `detections.json` into a folder.

    What is None is as in the run that made the checkpoint, so that its own numbers come again.

    Args:
        path: The checkpoint, or an ONNX file that `export` made of it.
        out: The folder for the results, which is tried before any image is read; None for `eval`
            beside the checkpoint.
        data: A COCO file, a folder in any format, YOLO's `data.yaml`, or a YAML file with root,
            annotations and images.
        images: The images of a COCO file: a folder, tar archives or a URL; None looks for them.
        backend: Who computes the numbers.
        batch_size: Images at a time.
        amp: Half precision to compute in, as `load` takes it.
        tta: Test-time augmentation, as `load` takes it.
        short_edge: Images are resized to this shorter edge in pixels.
        long_edge: Bound of the longer edge in pixels.
        device: As `--device`; a name joins the processes that torchrun has started.
        max_detections: Of an image and class that AP counts.
        broken_images: Whether an image that cannot be read ends the evaluation or is left out.
        show: Is given the numbers before they are written, which a full disk may prevent.
        explain: Is given them with their analysis, and the data, when they are written, in the main
            process.

    Raises:
        CheckpointError: If the checkpoint cannot be used.
        ConfigError: If options do not go together, or ranks have different ones.
        DatasetError: If the data cannot be used or its categories are others.
        OSError: If the disk is full.
        ValueError: If a number is out of range.
    """
    if isinstance(device, str):
        with init_process_group(device) as own_device:
            return evaluate_checkpoint(
                path,
                out,
                data=data,
                images=images,
                backend=backend,
                batch_size=batch_size,
                max_detections=max_detections,
                broken_images=broken_images,
                amp=amp,
                tta=tta,
                short_edge=short_edge,
                long_edge=long_edge,
                device=own_device,
                show=show,
                explain=explain,
            )
    path = Path(path)
    out = path.parent / "eval" if out is None else Path(out)
    require_edges(short_edge, long_edge)
    require_amp(amp)
    views = Views(tta=tta)
    for name, value, most in (
        ("batch_size", batch_size, MAX_BATCH_SIZE),
        ("max_detections", max_detections, MAX_DETECTIONS),
    ):
        if value is not None:
            require_count(name, value, most=most)
    with local_main_first():
        checkpoint, predictor = load_file(
            path,
            device=device,
            short_edge=short_edge,
            long_edge=long_edge,
            amp=amp,
            views=views,
        )
        config = checkpoint.config
        # A stranger's file may ask for more processes than this machine can bear.
        reading = config.data.model_copy(
            update={
                "num_workers": min(config.data.num_workers, os.cpu_count() or 1),
                "prefetch_factor": min(config.data.prefetch_factor, 2),
            }
        )
        if broken_images is not None:
            reading = reading.model_copy(update={"broken_images": broken_images})
        dataset = load_evaluation_data(
            reading,
            data=None if data is None else Path(data),
            images=None if images is None else image_location(str(images)),
            categories=checkpoint.categories,
        )
        if data is None:
            _require_held_out(checkpoint, dataset)
        main_only(require_writable)(out, "metrics.json", "detections.json")
    batch_size = batch_size or config.eval.batch_size
    edges = {"--short-edge": short_edge, "--long-edge": long_edge, "--amp": amp, "--tta": tta}
    _require_agreement(checkpoint, dataset, {**edges, "--batch-size": batch_size}, device)
    loader = evaluation_loader(reading, dataset, predictor.device, batch_size=batch_size)
    with pytorch_switches(config.runtime):
        result, detections = evaluate_detector(
            predictor.detector,
            loader,
            ground_truth=dataset.ground_truth(),
            categories=predictor.categories,
            device=predictor.device,
            backend=backend or config.eval.backend,
            max_detections=max_detections or config.eval.max_detections,
            detections_per_image=config.model.detector.detections_per_img,
            progress=True,
            with_analysis=explain is not None,
        )
    show(result)
    write_results(out, result, detections, annotations=dataset.annotations_path)
    if explain is not None:
        main_only(explain)(result, dataset)
    return result


def _require_held_out(checkpoint: Checkpoint, dataset: CocoDataset) -> None:
    """Make sure that a share of the training images is that which was not trained on.

    Raises:
        DatasetError: If it is another one, since the training data have changed.
    """
    if checkpoint.held_out not in (None, fingerprint(dataset)):
        raise DatasetError(
            f"{dataset.annotations_path}: the training data have changed, and the images that "
            f"data.val holds out with them: {checkpoint.held_out} were not trained on, now it is "
            f"{fingerprint(dataset)}; give other data by --data"
        )


def _require_agreement(
    checkpoint: Checkpoint,
    dataset: CocoDataset,
    options: Mapping[str, object],
    device: torch.device,
) -> None:
    """Make sure that all ranks share out the same work.

    Raises:
        RanksDifferError: If they do not, naming what differs.
    """
    require_agreement(
        {
            "checkpoint": f"step {checkpoint.step}",
            "data": fingerprint(dataset),
            "--device": device.type,
            **options,
        }
    )
