"""State dicts: read safely, loaded into modules, every key that does not fit reported."""

import logging
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dyhead_det.checkpoints.foreign_files import DAMAGED
from dyhead_det.errors import CheckpointError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What became of every key when a state dict was loaded."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def read_torch_file(path: Path) -> object:
    """Read a `torch.save` file without running any code that is pickled in it.

    Raises:
        CheckpointError: If the file is missing, damaged, or holds more than plain values.
    """
    try:
        _check_beginning(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        msg = f"{path}: cannot read: {error.strerror or error}"
        raise CheckpointError(msg) from error
    except pickle.UnpicklingError as error:
        msg = (
            f"{path}: refused, it is no file of plain tensors: reading it could run code that is "
            f"hidden in it ({_first_line(error)})"
        )
        raise CheckpointError(msg) from error
    except DAMAGED as error:
        msg = f"{path}: damaged or no PyTorch file ({_first_line(error)})"
        raise CheckpointError(msg) from error


def _check_beginning(path: Path) -> None:
    """Tell text, pictures and the like from archives and pickles, which `torch.save` writes."""
    with path.open("rb") as file:
        if not file.read(2).startswith((b"PK", b"\x80")):
            raise CheckpointError(
                f"{path}: no PyTorch file; a run's checkpoints are its best.pt and last.pt"
            )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read tensors by name from a .safetensors or a `torch.save` file.

    The usual wrappings (`state_dict`, `model`) and a leading ``module.`` are taken off.

    Raises:
        CheckpointError: If the file is missing, damaged, unsafe or holds no named tensors.
    """
    if path.suffix == ".safetensors":
        try:
            return dict(load_file(path))
        except (SafetensorError, OSError) as error:
            msg = f"{path}: cannot read as safetensors: {error}"
            raise CheckpointError(msg) from error
    content = read_torch_file(path)
    for wrapping in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapping), Mapping):
            content = content[wrapping]
    if not isinstance(content, Mapping):
        msg = f"{path}: holds no named tensors but a {type(content).__name__}"
        raise CheckpointError(msg)
    tensors = {
        str(name).removeprefix("module."): value
        for name, value in content.items()
        if isinstance(value, Tensor)
    }
    if not tensors:
        msg = f"{path}: holds no named tensors; its keys are {', '.join(map(str, content))[:200]}"
        raise CheckpointError(msg)
    return tensors


def load_into(
    module: nn.Module, tensors: Mapping[str, Tensor], *, source: str, ignored: tuple[str, ...] = ()
) -> LoadReport:
    """Copy what fits by name into a module and report every key that did not.

    Args:
        module: Changed in place.
        tensors: By the module's own names.
        source: What to call the origin in messages.
        ignored: Prefixes of source keys that the module is not meant to have.

    Raises:
        CheckpointError: If shapes differ or no key fits.
    """
    own = module.state_dict()
    fitting = {name: value for name, value in tensors.items() if name in own}
    unexpected = tuple(name for name in tensors if name not in own and not name.startswith(ignored))
    # A counter of batch norm: it changes nothing unless momentum is null, and frozen norms drop it.
    missing = tuple(
        name for name in own if name not in tensors and not name.endswith("num_batches_tracked")
    )
    unexpected = tuple(name for name in unexpected if not name.endswith("num_batches_tracked"))
    wrong = [
        f"{name} {tuple(value.shape)} instead of {tuple(own[name].shape)}"
        for name, value in fitting.items()
        if value.shape != own[name].shape
    ]
    if wrong:
        msg = f"{source}: made for another model, shapes differ: {'; '.join(wrong)}"
        raise CheckpointError(msg)
    if not fitting:
        msg = (
            f"{source}: made for another model, no key fits; it has {', '.join(list(tensors)[:3])} "
            f"..., wanted are {', '.join(list(own)[:3])} ..."
        )
        raise CheckpointError(msg)
    module.load_state_dict(fitting, strict=False)
    if missing:
        logger.warning("%s: %d keys missing: %s", source, len(missing), ", ".join(missing))
    if unexpected:
        logger.warning("%s: %d keys not used: %s", source, len(unexpected), ", ".join(unexpected))
    return LoadReport(tuple(fitting), missing, unexpected)
