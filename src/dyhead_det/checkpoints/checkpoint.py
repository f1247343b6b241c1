"""Checkpoints: plain tensors and values, written whole or not at all, read field by field."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from dyhead_det.checkpoints.migrate import FIRST_VERSION, VERSION, migrate
from dyhead_det.checkpoints.recognize import looks_like
from dyhead_det.checkpoints.state_dicts import require_finite
from dyhead_det.checkpoints.weight_files import has_placeholders, named_tensors, read_weight_file
from dyhead_det.config.schema import RunConfig, parse_config, to_plain
from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.distributed.rank_zero import main_only
from dyhead_det.errors import CheckpointError
from dyhead_det.escaping import printable
from dyhead_det.files import written_whole

FORMAT = "dyhead-det"

MAX_CATEGORIES = 100_000
_MAX_BITS = 63


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All that prediction needs, and, in `last.pt`, all that training needs to go on.

    model: the detector's state dict, on the CPU when it was read from a file.
    metrics: COCO numbers on the validation data at this step, if there are any.
    min_scores: of each class the bound of the score with the highest F1 on these data, if any.
    held_out: what the validation data were where they are a share of the training images, in words.
    training: the state of the run (see `training.run`), plain values as they were read, or None.
    source: what messages call it: its file, if it was read from one.
    """

    config: RunConfig
    categories: CategoryMap
    model: dict[str, Tensor]
    step: int
    metrics: dict[str, float | None]
    training: dict[str, Any] | None = None
    min_scores: dict[str, float] | None = None
    held_out: str | None = None
    source: str = field(default="the checkpoint", compare=False)


@main_only
def save_checkpoint(path: Path, checkpoint: Checkpoint, *, previous: Path | None = None) -> None:
    """Write a checkpoint, whole or not at all, and force it to the disk.

    Args:
        path: Where to.
        checkpoint: What to write.
        previous: Where to keep the checkpoint that was at `path`.

    Raises:
        OSError: If the disk is full or the folder cannot be written.
    """
    with written_whole(path, durable=True, previous=previous) as unfinished:
        _write(content_of(checkpoint), unfinished)


def content_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what is written of a checkpoint, which `parse_checkpoint` reads."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "config": to_plain(checkpoint.config),
        "categories": checkpoint.categories.to_plain(),
        "model": checkpoint.model,
        "step": checkpoint.step,
        "metrics": checkpoint.metrics,
        "min_scores": checkpoint.min_scores,
        "held_out": checkpoint.held_out,
        "training": checkpoint.training,
    }


def load_checkpoint(path: Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote, onto the CPU.

    Raises:
        CheckpointError: If the file is missing, damaged, unsafe, of another program or version, or
            if anything in it is not what it should be.
    """
    return parse_checkpoint(read_weight_file(path), source=str(path))


def parse_checkpoint(content: object, *, source: str) -> Checkpoint:
    """Check what was read from a file, field by field.

    Args:
        content: As `read_weight_file` returns it.
        source: What to call the file in messages.

    Raises:
        CheckpointError: As `load_checkpoint`.
    """
    if not isinstance(content, dict) or not is_ours(content):
        likeness = looks_like(content, named_tensors(content))
        is_published = likeness.startswith("a DyHead model")
        hint = ": import it first, `dyhead-det weights import`" if is_published else ""
        raise CheckpointError(
            f"{source}: refused, not a checkpoint of dyhead-det as a run's best.pt and last.pt; it "
            f"looks like {likeness}{hint}"
        )
    if has_placeholders(content):
        raise CheckpointError(
            f"{source}: refused, it holds more than plain values and tensors of real numbers: "
            "dyhead-det writes no such file, and in other programs it could run code"
        )
    version = content.get("version")
    if type(version) is not int or version < FIRST_VERSION:
        raise CheckpointError(f"{source}: no version of dyhead-det has written such a format")
    if version > VERSION:
        raise CheckpointError(
            f"{source}: written by a newer dyhead-det (format {version}); upgrade it"
        )
    try:
        return _parse_fields(content, version, source)
    except ValidationError as error:
        first = error.errors()[0]
        place = printable(".".join(map(str, ("config", *first["loc"]))), max_length=80)
        raise CheckpointError(f"{source}: {place}: {first['msg']}") from error
    except ValueError as error:
        raise CheckpointError(f"{source}: {error}") from error
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error


def is_ours(content: object) -> bool:
    """Return whether what was read from a file says that it is a checkpoint of ours."""
    return isinstance(content, Mapping) and content.get("format") == FORMAT


def _parse_fields(content: dict[str, Any], version: int, source: str) -> Checkpoint:
    config = _field(content, "config", dict)
    _require_plain(config, "config")
    if content.get("training") is not None:
        _with_text_keys(_field(content, "training", dict), "training")
    try:
        content = migrate(content, version)
    except KeyError as error:
        raise ValueError(f"incomplete: {error} is missing") from error
    step = _field(content, "step", int)
    if step < 0 or step.bit_length() > _MAX_BITS:
        raise ValueError("step: no number of steps")
    categories = _parse_categories(_field(content, "categories", list))
    return Checkpoint(
        config=parse_config(content["config"]),
        categories=categories,
        model=_parse_model(_field(content, "model", dict)),
        step=step,
        metrics=_parse_metrics(_field(content, "metrics", dict)),
        training=content.get("training"),
        min_scores=_parse_min_scores(content, categories),
        held_out=None if content.get("held_out") is None else _field(content, "held_out", str),
        source=source,
    )


def _field(content: dict[str, Any], name: str, kind: type) -> Any:  # noqa: ANN401 - of that kind
    if name not in content:
        raise ValueError(f"incomplete: {name} is missing")
    value = content[name]
    if type(value) is not kind:
        raise ValueError(f"{name}: a {type(value).__name__} instead of a {kind.__name__}")
    return value


def _with_text_keys(values: dict[Any, Any], name: str) -> dict[str, Any]:
    if not all(type(key) is str for key in values):
        raise ValueError(f"{name}: its keys are not all text")
    return values


def _require_plain(value: object, place: str) -> None:
    """Check that a value can be written as JSON, as a configuration can."""
    if isinstance(value, dict):
        for key, item in _with_text_keys(value, place).items():
            _require_plain(item, f"{place}.{printable(key, max_length=40)}")
    elif isinstance(value, list | tuple):
        for item in value:
            _require_plain(item, place)
    elif isinstance(value, int):
        if value.bit_length() > _MAX_BITS:
            raise ValueError(f"{place}: a number of {value.bit_length()} bits")
    elif value is not None and not isinstance(value, str | float):
        raise ValueError(f"{place}: a {type(value).__name__}")


def _parse_categories(entries: list[Any]) -> CategoryMap:
    if not 0 < len(entries) <= MAX_CATEGORIES:
        raise ValueError(f"categories: {len(entries)} of them")
    by_label: dict[int, Category] = {}
    for entry in entries:
        values = entry if isinstance(entry, dict) else {}
        name, dataset_id, label = map(values.get, ("name", "dataset_id", "label"))
        if type(name) is not str or type(dataset_id) is not int or type(label) is not int:
            raise ValueError("categories: wanted are a name, a dataset_id and a label of each")
        if dataset_id.bit_length() > _MAX_BITS:
            raise ValueError(f"categories: an id of {dataset_id.bit_length()} bits")
        by_label[label] = Category(name, dataset_id)
    if sorted(by_label) != list(range(len(entries))):
        raise ValueError(f"categories: their labels are not 0 to {len(entries) - 1}")
    return CategoryMap(tuple(by_label[label] for label in range(len(entries))))


def _parse_model(values: dict[Any, Any]) -> dict[str, Tensor]:
    model = _with_text_keys(values, "model")
    other = [name for name, value in model.items() if not isinstance(value, Tensor)]
    if other or not model:
        what = f"{printable(other[0], max_length=80)} is no tensor" if other else "it is empty"
        raise ValueError(f"model: {what}")
    require_finite(model, source="model")
    return model


def _parse_metrics(values: dict[Any, Any]) -> dict[str, float | None]:
    metrics = _with_text_keys(values, "metrics")
    for name, value in metrics.items():
        if value is not None and type(value) not in (int, float):
            shown = printable(name, max_length=80)
            raise ValueError(f"metrics.{shown}: a {type(value).__name__} instead of a number")
        if isinstance(value, int) and value.bit_length() > _MAX_BITS:
            shown = printable(name, max_length=80)
            raise ValueError(f"metrics.{shown}: a number of {value.bit_length()} bits")
    return metrics


def _parse_min_scores(content: dict[str, Any], categories: CategoryMap) -> dict[str, float] | None:
    """Read what files have only since detectors look for their best bounds."""
    if content.get("min_scores") is None:
        return None
    values = _with_text_keys(_field(content, "min_scores", dict), "min_scores")
    if set(values) != set(categories.names):
        raise ValueError("min_scores: not those of its classes")
    if not all(type(value) is float and 0 <= value <= 1 for value in values.values()):
        raise ValueError("min_scores: they are no numbers from 0 to 1")
    return values


def _write(content: object, path: Path) -> None:
    """Write a file of PyTorch; given a path itself, PyTorch would not tell that a disk is full."""
    with path.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise
