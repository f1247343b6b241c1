"""Published weights -> an ordinary checkpoint of ours, with configuration and categories."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, Protocol

from pydantic import ValidationError
from torch import Tensor

from dyhead_det.checkpoints.checkpoint import Checkpoint, save_checkpoint
from dyhead_det.checkpoints.key_mapping import ImportReport, KeyMapping, translate
from dyhead_det.checkpoints.recognize import looks_like
from dyhead_det.checkpoints.state_dicts import require_finite
from dyhead_det.checkpoints.weight_files import (
    named_tensors,
    names_without_tensors,
    read_weight_file,
)
from dyhead_det.config.schema import (
    DataConfig,
    EvalConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    RuntimeConfig,
    ScheduleConfig,
    SplitConfig,
    TrainConfig,
    ValidationConfig,
)
from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.errors import CheckpointError
from dyhead_det.files import require_new, require_writable
from dyhead_det.models.detectors import build_detector
from dyhead_det.pretrained import detectron2, mmdet
from dyhead_det.pretrained.coco_categories import COCO_CATEGORIES

logger = logging.getLogger(__name__)

WeightFormat = Literal["auto", "detectron2", "mmdet"]


class _Importer(Protocol):
    """One module per kind of file."""

    def is_dyhead(self, names: Mapping[str, Tensor]) -> bool: ...

    def describe_model(
        self, tensors: Mapping[str, Tensor], *, source: str
    ) -> tuple[ModelConfig, int]: ...

    def build_key_mapping(self, config: ModelConfig) -> KeyMapping: ...


_IMPORTERS: dict[str, _Importer] = {"detectron2": detectron2, "mmdet": mmdet}


def import_weights(
    source: Path, out: Path, *, format: WeightFormat, overwrite: bool = False
) -> ImportReport:
    """Write a checkpoint from a file of published weights.

    Args:
        source: A file of the authors' models or of mmdetection's.
        out: The checkpoint to write.
        format: Whose file it is; `auto` finds out.
        overwrite: Replace a file that is there.

    Returns:
        What became of every key.

    Raises:
        CheckpointError: If the file is missing, damaged, or of another kind: with what it is.
        ConfigError: If `out` is there already or cannot be written.
    """
    require_new(out, overwrite=overwrite)
    require_writable(out.parent, option="OUT")
    content = read_weight_file(source)
    tensors = named_tensors(content)
    importers = _IMPORTERS if format == "auto" else {format: _IMPORTERS[format]}
    importer = next((each for each in importers.values() if each.is_dyhead(tensors)), None)
    if importer is None:
        raise CheckpointError(
            f"{source}: wanted is a DyHead detector in the format of {' or '.join(importers)}; "
            f"this looks like {looks_like(content, tensors)}"
        )
    require_finite(tensors, source=str(source))
    model, num_classes = _describe_model(importer, tensors, source=source)
    detector = build_detector(model, num_classes=num_classes, load_backbone_weights=False)
    state, report = translate(
        tensors,
        importer.build_key_mapping(model),
        wanted=detector.state_dict(),
        source=str(source),
    )
    checkpoint = Checkpoint(
        config=published_run(model),
        categories=_categories(num_classes, source=source),
        model=state,
        step=0,
        metrics={},
    )
    save_checkpoint(out, checkpoint)
    without = dict.fromkeys(names_without_tensors(content), "no tensor")
    return replace(report, dropped={**report.dropped, **without})


def _describe_model(
    importer: _Importer, tensors: Mapping[str, Tensor], *, source: Path
) -> tuple[ModelConfig, int]:
    try:
        model, num_classes = importer.describe_model(tensors, source=str(source))
    except ValidationError as error:
        reason = error.errors()[0]
        place = ".".join(map(str, reason["loc"]))
        raise CheckpointError(
            f"{source}: a DyHead detector, but none that can be built: {place}: {reason['msg']}"
        ) from error
    if num_classes < 1:
        raise CheckpointError(f"{source}: a DyHead detector without classes")
    return model, num_classes


def published_run(model: ModelConfig) -> RunConfig:
    """Return the run on COCO that a published model came from."""
    optim, schedule, train = _published_recipe(model)
    return RunConfig(
        data=DataConfig(
            root="coco",
            train=SplitConfig(
                annotations="annotations/instances_train2017.json", images="train2017"
            ),
            val=ValidationConfig(
                annotations="annotations/instances_val2017.json", images="val2017"
            ),
            empty_images="drop",
        ),
        model=model,
        optim=optim,
        schedule=schedule,
        train=train,
        # As the originals: by way of the global poolings and group norms, what is found in an image
        # depends on its padding, and so on the images beside it.
        eval=EvalConfig(batch_size=1),
        # The agreement with the originals was measured in float32.
        runtime=RuntimeConfig(tf32=False),
    )


def _published_recipe(model: ModelConfig) -> tuple[OptimConfig, ScheduleConfig, TrainConfig]:
    is_swin = model.backbone.name.startswith("swin")
    if model.compat == "mmdet":
        schedule = ScheduleConfig(warmup_steps=500, milestones=(8 / 12, 11 / 12))
        if is_swin:
            adamw = OptimConfig(name="adamw", lr=5e-5, weight_decay=0.05)
            return adamw, schedule, TrainConfig(epochs=24)
        return OptimConfig(lr=0.01), schedule, TrainConfig(epochs=12)
    if is_swin:
        adamw = OptimConfig(name="adamw", lr=1e-4, weight_decay=0.05)
        return adamw, ScheduleConfig(), TrainConfig(steps=90_000, batch_size=32)
    sgd = OptimConfig(lr=0.02 if model.detector.name == "fasterrcnn" else 0.01)
    return sgd, ScheduleConfig(), TrainConfig(steps=90_000)


def _categories(num_classes: int, *, source: Path) -> CategoryMap:
    """Return COCO's categories, or numbered ones: files do not tell names."""
    if num_classes == len(COCO_CATEGORIES):
        return COCO_CATEGORIES
    logger.warning(
        "%s: %d classes, not COCO's 80, and no names in the file: they are called by number",
        source.name,
        num_classes,
    )
    return CategoryMap(tuple(Category(f"class {n}", n) for n in range(1, num_classes + 1)))
