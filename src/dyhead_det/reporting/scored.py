"""What has been scored, read again: runs, evaluations, and results files of any detector."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dyhead_det.errors import ConfigError, DatasetError
from dyhead_det.evaluation.coco_scores import EvalResult
from dyhead_det.evaluation.results_file import evaluate_results, read_json
from dyhead_det.reporting.metrics_file import Row, read_rows

RUN, EVALUATION, DETECTIONS = "metrics.jsonl", "metrics.json", "detections.json"
_CLASS_PREFIX = "AP/"
# The numbers of one checkpoint on the same data, scored twice.
EQUAL_AP = 1e-6


@dataclass(frozen=True, slots=True)
class ScoredDetector:
    """A detector with its numbers.

    name: as it was given.
    metrics: COCO's 12 numbers by name; of a run those of its best evaluation.
    classes: AP of each class.
    data: numbers of images and of objects that it was scored on; None where that is not known.
    curve: step and AP of each evaluation of a run; empty without a run.
    detections: the file of what it found, if there is one.
    annotations: the file that this was scored against, if it is known.
    """

    name: str
    metrics: Mapping[str, float | None]
    classes: Mapping[str, float | None]
    data: tuple[int, int] | None
    curve: Sequence[tuple[int, float]] = ()
    detections: Path | None = None
    annotations: Path | None = None


def read_scored(path: Path, annotations: Path | None) -> ScoredDetector:
    """Read the numbers of a run, an evaluation or a results file.

    Args:
        path: The folder of a run or of an evaluation, a `metrics.json`, or COCO results.
        annotations: To score results files against, and for the bootstrap; None for those that the
            evaluation names.

    Raises:
        ConfigError: Where it is nothing of these, or COCO results come without annotations.
        DatasetError: Where a file is damaged, or does not belong to the annotations.
    """
    if path.is_dir():
        if (path / RUN).is_file():
            return _read_run(path, annotations)
        if (path / EVALUATION).is_file():
            return _read_evaluation(path / EVALUATION, annotations, name=str(path))
        raise ConfigError(
            f"{path}: holds neither a run ({RUN}) nor an evaluation ({EVALUATION}); give the "
            "folder of one, or COCO results with --data"
        )
    content = read_json(path)
    if isinstance(content, dict) and "metrics" in content:
        return _read_evaluation(path, annotations, name=str(path))
    if not isinstance(content, list):
        raise ConfigError(f"{path}: is neither a {EVALUATION} of `eval` nor COCO results")
    if annotations is None:
        raise ConfigError(f"{path}: COCO results need --data ANNOTATIONS.json to be scored")
    result = evaluate_results(path, annotations, backend="auto")
    return _from_result(result, path, annotations)


def _from_result(result: EvalResult, path: Path, annotations: Path) -> ScoredDetector:
    return ScoredDetector(
        name=str(path),
        metrics=result.metrics,
        classes={line.name: line.AP for line in result.classes},
        data=(result.num_images, result.num_boxes),
        detections=path,
        annotations=annotations,
    )


def _read_run(folder: Path, annotations: Path | None) -> ScoredDetector:
    """Read a run; what its best checkpoint found is known if `eval` has been there."""
    rows = [row for row in read_rows(folder / RUN) if row.get("AP") is not None]
    if not rows:
        raise DatasetError(f"{folder}: a run that nothing was evaluated in, without numbers")
    best = max(rows, key=lambda row: row["AP"] or 0.0)
    evaluation = folder / "eval" / EVALUATION
    of_best = None
    if evaluation.is_file():
        of_best = _read_evaluation(evaluation, annotations, name=str(folder))
        if abs((of_best.metrics.get("AP") or 0.0) - (best["AP"] or 0.0)) > EQUAL_AP:
            of_best = None  # of another checkpoint, or on other data
    return ScoredDetector(
        name=str(folder),
        metrics={
            name: value for name, value in best.items() if name.startswith("A") and "/" not in name
        },
        classes={
            name.removeprefix(_CLASS_PREFIX): value
            for name, value in best.items()
            if name.startswith(_CLASS_PREFIX)
        },
        data=_data_of(best),
        curve=[(int(row["step"] or 0), row["AP"] or 0.0) for row in rows],
        detections=None if of_best is None else of_best.detections,
        annotations=None if of_best is None else of_best.annotations,
    )


def _data_of(row: Row | Mapping[str, Any]) -> tuple[int, int] | None:
    num_images, num_boxes = row.get("num_images"), row.get("num_boxes")
    if not isinstance(num_images, int) or not isinstance(num_boxes, int):
        return None  # written by an older version
    return num_images, num_boxes


def _read_evaluation(path: Path, annotations: Path | None, *, name: str) -> ScoredDetector:
    content = read_json(path)
    try:
        metrics = {str(key): _number(value) for key, value in content["metrics"].items()}
        classes = {str(line["name"]): _number(line["AP"]) for line in content["classes"]}
        scored_against = content.get("annotations")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{path}: damaged, or not written by `eval`: {error!r}") from error
    detections = path.parent / DETECTIONS
    if annotations is None and isinstance(scored_against, str):
        annotations = Path(scored_against)
    return ScoredDetector(
        name=name,
        metrics=metrics,
        classes=classes,
        data=_data_of(content),
        detections=detections if detections.is_file() else None,
        annotations=annotations,
    )


def _number(value: object) -> float | None:
    return None if value is None else float(value)  # type: ignore[arg-type]  # its errors are caught
