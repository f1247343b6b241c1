"""Checkpoints: plain tensors and values, written whole or not at all, read without running code."""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from dyhead_det.checkpoints.foreign_files import named_tensors
from dyhead_det.checkpoints.migrate import FIRST_VERSION, VERSION, migrate
from dyhead_det.checkpoints.recognize import looks_like
from dyhead_det.checkpoints.state_dicts import read_torch_file
from dyhead_det.config.schema import RunConfig, parse_config, to_plain
from dyhead_det.contracts import CategoryMap
from dyhead_det.distributed.rank_zero import main_only
from dyhead_det.errors import CheckpointError
from dyhead_det.files import written_whole

FORMAT = "dyhead-det"

# What `zipfile` raises for one or the other wrong byte, besides its own error.
_DAMAGES = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    RuntimeError,  # NotImplementedError too
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All that prediction needs, and, in `last.pt`, all that training needs to go on.

    model: the detector's state dict, on the CPU when it was read from a file.
    metrics: COCO numbers on the validation data at this step, if there are any.
    training: the state of the run (see `engine.train`), or None.
    """

    config: RunConfig
    categories: CategoryMap
    model: dict[str, Tensor]
    step: int
    metrics: dict[str, float | None]
    training: dict[str, Any] | None = None


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
    content = {
        "format": FORMAT,
        "version": VERSION,
        "config": to_plain(checkpoint.config),
        "categories": checkpoint.categories.to_plain(),
        "model": checkpoint.model,
        "step": checkpoint.step,
        "metrics": checkpoint.metrics,
        "training": checkpoint.training,
    }
    with written_whole(path, durable=True, previous=previous) as unfinished:
        _write(content, unfinished)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote, onto the CPU.

    Raises:
        CheckpointError: If the file is missing, damaged, unsafe, of another program or version.
    """
    if zipfile.is_zipfile(path) and (damage := find_damage(path)):
        msg = f"{path}: damaged: {damage}"
        raise CheckpointError(msg)
    content = read_torch_file(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        likeness = looks_like(content, named_tensors(content))
        is_published = likeness.startswith("a DyHead model")
        hint = ": import it first, `dyhead-det weights import`" if is_published else ""
        raise CheckpointError(
            f"{path}: not a checkpoint of dyhead-det; it looks like {likeness}{hint}"
        )
    version = content.get("version")
    if not isinstance(version, int) or version < FIRST_VERSION:
        raise CheckpointError(f"{path}: no version of dyhead-det has written format {version!r}")
    if version > VERSION:
        msg = f"{path}: written by a newer dyhead-det (format {version}); upgrade it"
        raise CheckpointError(msg)
    try:
        content = migrate(content, version)
        return Checkpoint(
            config=parse_config(content["config"]),
            categories=CategoryMap.from_plain(content["categories"]),
            model=content["model"],
            step=content["step"],
            metrics=content["metrics"],
            training=content["training"],
        )
    except (KeyError, ValidationError) as error:
        msg = f"{path}: incomplete or of another version of dyhead-det: {error}"
        raise CheckpointError(msg) from error


def find_damage(path: Path) -> str | None:
    """Compare what a file of PyTorch holds with its checksums, which PyTorch does not do.

    Returns:
        What is wrong, a missing file included; None where nothing is.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.testzip()
    except PermissionError:
        return None
    except _DAMAGES as error:
        return str(error)
    return None if member is None else f"the checksum of {member} does not fit"


def _write(content: object, path: Path) -> None:
    """Write a file of PyTorch; given a path itself, PyTorch would not tell that a disk is full."""
    with path.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise
