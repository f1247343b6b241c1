"""`eval`: a checkpoint and a data set in, the COCO numbers and the detections out."""

from pathlib import Path

import torch

from dyhead_det.checkpoints.checkpoint import load_checkpoint
from dyhead_det.data.build_datasets import load_evaluation_data
from dyhead_det.data.build_loaders import evaluation_loader
from dyhead_det.distributed.rank_zero import local_main_first
from dyhead_det.evaluation.coco_scores import Backend, EvalResult
from dyhead_det.evaluation.evaluate import evaluate_detector, write_results
from dyhead_det.models.runtime import pytorch_switches
from dyhead_det.prediction.predictor import Predictor


def evaluate_checkpoint(
    path: Path,
    out: Path,
    *,
    data: Path | None,
    images: Path | None,
    backend: Backend | None,
    batch_size: int | None,
    max_detections: int | None,
    short_edge: int | None,
    long_edge: int | None,
    device: torch.device,
) -> EvalResult:
    """Evaluate a checkpoint; write `metrics.json` and `detections.json` into a folder.

    What is None is as in the run that made the checkpoint, so that its own numbers come again.

    Raises:
        CheckpointError: If the checkpoint cannot be used.
        ConfigError: If options do not go together.
        DatasetError: If the data cannot be used or its categories are others.
    """
    with local_main_first():
        checkpoint = load_checkpoint(path)
        config = checkpoint.config
        dataset = load_evaluation_data(config.data, data=data, images=images)
        predictor = Predictor.from_checkpoint(
            checkpoint, device=device, short_edge=short_edge, long_edge=long_edge
        )
    loader = evaluation_loader(
        config.data, dataset, predictor.device, batch_size=batch_size or config.eval.batch_size
    )
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
        )
    write_results(out, result, detections)
    return result
