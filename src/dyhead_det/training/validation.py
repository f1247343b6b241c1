"""Evaluation on the validation data during a run: COCO numbers, the best checkpoint, stopping."""

import logging

from dyhead_det.data.build_loaders import evaluation_loader
from dyhead_det.data.coco.dataset import CocoDataset
from dyhead_det.distributed.collectives import broadcast_object
from dyhead_det.distributed.stopping import StopSignals
from dyhead_det.evaluation.coco_scores import EvalResult
from dyhead_det.evaluation.evaluate import evaluate_detector
from dyhead_det.evaluation.ground_truth import CocoResult
from dyhead_det.models.detectors import Detector
from dyhead_det.training.record import RunRecord
from dyhead_det.training.run import Run
from dyhead_det.training.saving import save_best

logger = logging.getLogger(__name__)


def is_validation_due(run: Run) -> bool:
    """Evaluate at the end of every N-th epoch and at the end of the run, once."""
    step = run.progress.step
    if run.progress.evaluated_step == step:
        return False
    period = run.parts.steps_per_epoch * run.parts.config.train.eval_every_epochs
    return step % period == 0 or step == run.parts.num_steps


def validate(run: Run, data: CocoDataset, stop: StopSignals, record: RunRecord) -> None:
    """Score the detector on the validation data; keep the checkpoint if it is the best."""
    config, progress = run.parts.config.train, run.progress
    result, detections = _score(run, run.parts.evaluated_detector, data, stop)
    raw = None
    if config.ema is not None and config.ema.evaluate_raw:
        raw, _ = _score(run, run.parts.detector, data, stop)
    progress.metrics, progress.min_scores = result.metrics, result.min_scores
    is_best = not progress.best or result.ap > (progress.best["AP"] or 0.0)
    # Only what can be read again counts as the best.
    if is_best and broadcast_object(lambda: save_best(run)):
        progress.best = {"step": progress.step, **result.metrics}
    progress.evaluated_step = progress.step
    logger.info(
        "step %d, epoch %.4g: AP %.3f, AP50 %.3f%s",
        progress.step,
        run.epoch,
        result.ap,
        result.metrics["AP50"] or 0.0,
        " (best)" if is_best else "",
    )
    record.evaluated(result, detections, is_best=is_best, raw=raw)
    early_stopping = progress.early_stopping
    if early_stopping is not None:
        early_stopping.note(result.ap)
        if early_stopping.is_over:
            logger.info(
                "train.early_stopping: AP has not risen by more than %g in %d evaluations",
                early_stopping.min_delta,
                early_stopping.patience,
            )


def _score(
    run: Run, detector: Detector, data: CocoDataset, stop: StopSignals
) -> tuple[EvalResult, list[CocoResult]]:
    parts = run.parts
    loader = evaluation_loader(
        parts.config.data, data, parts.device, batch_size=parts.config.eval.batch_size
    )
    return evaluate_detector(
        detector,
        stop.watch(loader),
        ground_truth=data.ground_truth(),
        categories=parts.train_data.categories,
        device=parts.device,
        backend=parts.config.eval.backend,
        max_detections=parts.config.eval.max_detections,
        detections_per_image=parts.config.model.detector.detections_per_img,
        progress=True,
    )
