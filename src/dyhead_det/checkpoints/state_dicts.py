"""State dicts: checked against a module's own and loaded; every key that does not fit reported."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dyhead_det.errors import CheckpointError
from dyhead_det.escaping import listed

logger = logging.getLogger(__name__)

_STEP_COUNTER = "num_batches_tracked"


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What became of every key when a state dict was loaded."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


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
        CheckpointError: If shapes or types differ, numbers are not finite, or no key fits.
    """
    own = module.state_dict()
    fitting = {name: value for name, value in tensors.items() if name in own}
    unexpected = tuple(name for name in tensors if name not in own and not name.startswith(ignored))
    # A counter of batch norm: it changes nothing unless momentum is null, and frozen norms drop it.
    missing = tuple(
        name for name in own if name not in tensors and not name.endswith(_STEP_COUNTER)
    )
    unexpected = tuple(name for name in unexpected if not name.endswith(_STEP_COUNTER))
    _require_fitting(fitting, own, source=source)
    require_finite(fitting, source=source)
    if not fitting:
        raise CheckpointError(
            f"{source}: made for another model, no key fits; it has "
            f"{listed(tensors, max_named=3)}, wanted are {listed(own, max_named=3)}"
        )
    module.load_state_dict(_without_computed(fitting, own), strict=False)
    if missing:
        logger.warning("%s: %d keys missing: %s", source, len(missing), ", ".join(missing))
    if unexpected:
        logger.warning("%s: %d keys not used: %s", source, len(unexpected), listed(unexpected))
    return LoadReport(tuple(fitting), missing, unexpected)


def load_exactly(module: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Fill a module with a state dict of its own kind: every key, and no other.

    Args:
        module: Changed in place.
        tensors: By the module's own names.
        source: What to call the origin in messages.

    Raises:
        CheckpointError: As `require_exact`.
    """
    own = module.state_dict()
    require_exact(tensors, own, source=source)
    module.load_state_dict(_without_computed(tensors, own), strict=False)


def require_exact(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], *, source: str) -> None:
    """Compare a state dict with a module's own, which may be on the meta device.

    Raises:
        CheckpointError: If any key is missing, has no place, or does not fit.
    """
    missing = [name for name in own if name not in tensors and not is_computed(name, own[name])]
    surplus = [name for name in tensors if name not in own]
    if missing or surplus:
        problems = [
            f"{len(names)} {what}: {listed(names, max_named=3)}"
            for names, what in ((missing, "missing"), (surplus, "without a place in the model"))
            if names
        ]
        raise CheckpointError(f"{source}: the weights are another model's; {'; '.join(problems)}")
    _require_fitting(tensors, own, source=source)


def misfit(given: Tensor, own: Tensor) -> str | None:
    """Say why a tensor cannot take the place of another; None if it can.

    Floats of any width do for floats; a cast from whole, complex or boolean numbers would hide
    that they mean something else.
    """
    if given.shape != own.shape:
        return f"shape {tuple(given.shape)} instead of {tuple(own.shape)}"
    if given.is_floating_point() and own.is_floating_point():
        return None
    if given.dtype != own.dtype:
        return f"numbers of type {_type_name(given)} instead of {_type_name(own)}"
    return None


def require_finite(tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Refuse weights with which nothing is ever found.

    Raises:
        CheckpointError: If any number is NaN or infinite as float32, which models compute in, or a
            variance is negative.
    """
    broken = [name for name, value in tensors.items() if not _is_finite(value)]
    negative = [name for name, value in tensors.items() if _is_negative_variance(name, value)]
    if negative:
        raise CheckpointError(
            f"{source}: variances below zero in {len(negative)} of {len(tensors)} tensors: "
            f"{listed(negative, max_named=3)}; no training leaves such"
        )
    if broken:
        raise CheckpointError(
            f"{source}: NaN or infinite numbers in {len(broken)} of {len(tensors)} tensors: "
            f"{listed(broken, max_named=3)}; take a checkpoint from before training went wrong"
        )


def is_computed(name: str, own: Tensor) -> bool:
    """Return whether a tensor follows from the architecture, as the indices of Swin's windows do.

    What a file has in its place is left out: a wrong index would go unnoticed.
    """
    return not own.is_floating_point() and not name.endswith(_STEP_COUNTER)


def _require_fitting(
    tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], *, source: str
) -> None:
    wrong = [
        f"{name} {problem}"
        for name, value in tensors.items()
        if (problem := misfit(value, own[name])) is not None
    ]
    if wrong:
        raise CheckpointError(
            f"{source}: made for another model, {len(wrong)} tensors differ: "
            f"{'; '.join(_first(wrong))}"
        )


def _first(problems: Iterable[str], number: int = 5) -> list[str]:
    shown = list(problems)
    more = len(shown) - number
    return shown[:number] + [f"and {more} more"] * (more > 0)


def _without_computed(
    tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    return {name: value for name, value in tensors.items() if not is_computed(name, own[name])}


def _is_finite(value: Tensor) -> bool:
    if not value.is_floating_point() or not value.numel():
        return True
    least, greatest = value.to(torch.float32).aminmax()  # both NaN where any is
    return bool(torch.isfinite(least) & torch.isfinite(greatest))


def _is_negative_variance(name: str, value: Tensor) -> bool:
    return name.endswith("running_var") and value.is_floating_point() and bool((value < 0).any())


def _type_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
