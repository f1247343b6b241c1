"""Key mapping: names of foreign weights -> ours, by rules; every key of both sides is reported.

A rule reads ``res2.*.conv*.norm.%`` -> ``layer1.*.bn*.%``: a ``*`` is a number, the ``%`` at the
end is the last word (weight, bias, running_mean ...); both are carried over in their order. A
target ``name[*]`` is row ``*`` of the tensor ``name``.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dyhead_det.checkpoints.state_dicts import misfit
from dyhead_det.errors import CheckpointError
from dyhead_det.escaping import printable

MAX_NAMES = 20_000
MAX_NAMES_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Rule:
    """Source names that match `source` are ours by `target`, after `convert`."""

    source: str
    target: str
    convert: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True, slots=True)
class UnmappedKey:
    """Names that a mapping does not map, and why that is right.

    value: for names of ours what they are set to; None keeps what the model was built with.
    """

    pattern: str
    reason: str
    value: float | None = None


@dataclass(frozen=True, slots=True)
class KeyMapping:
    """How to read one kind of file: `dropped` names the source's, `filled` ours."""

    rules: Sequence[Rule]
    dropped: Sequence[UnmappedKey] = ()
    filled: Sequence[UnmappedKey] = ()


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of every key.

    mapped: the source's name -> ours.
    dropped: the source's name -> the reason.
    filled: our name -> the reason why it is not from the file.
    """

    mapped: dict[str, str]
    dropped: dict[str, str]
    filled: dict[str, str]

    def __str__(self) -> str:
        """Return a line for what was imported and one for each group of names that was not."""
        lines = [f"{len(self.mapped)} tensors imported"]
        for names, what in ((self.dropped, "left out"), (self.filled, "not from the file")):
            groups = Counter((_numberless(name), reason) for name, reason in names.items())
            lines += [
                f"{count} {what}: {name} ({reason})" for (name, reason), count in groups.items()
            ]
        return "\n".join(lines)


def _numberless(name: str) -> str:
    return re.sub(r"\d+(?=\.|$)", "*", name)


def with_prefix(source: str, target: str, rules: Sequence[Rule]) -> list[Rule]:
    """Put prefixes before both sides of rules."""
    return [Rule(source + rule.source, target + rule.target, rule.convert) for rule in rules]


def translate(
    tensors: Mapping[str, Tensor], mapping: KeyMapping, *, wanted: Mapping[str, Tensor], source: str
) -> tuple[dict[str, Tensor], ImportReport]:
    """Turn foreign tensors into a state dict of ours.

    Args:
        tensors: The file's, by its names.
        mapping: The rules of its kind.
        wanted: Our model's state dict: names and shapes to fill.
        source: What to call the file in messages.

    Returns:
        All tensors of `wanted`, float32, and what became of every key.

    Raises:
        CheckpointError: With all names that are unknown, missing or of another shape.
    """
    if len(tensors) > MAX_NAMES:
        raise CheckpointError(f"{source}: {len(tensors)} tensors, more than any model has")
    mapped: dict[str, str] = {}
    dropped: dict[str, str] = {}
    found: dict[str, Tensor] = {}
    problems: list[str] = []
    for name, tensor in tensors.items():
        reason = _reason_for(name, mapping.dropped)
        if reason is not None:
            dropped[name] = reason.reason
            continue
        match = _first_match(name, mapping.rules)
        if match is None:
            problems.append(f"{printable(name, max_length=200)} is unknown")
            continue
        rule, target = match
        if target in found:
            problems.append(f"{name} and another are both {target}")
        mapped[name] = target
        try:
            found[target] = rule.convert(tensor) if rule.convert else tensor
        except (RuntimeError, IndexError):  # of another number of dimensions
            problems.append(f"{name} has shape {tuple(tensor.shape)}")
    state = _stack_rows(found)
    filled: dict[str, str] = {}
    for name, own in wanted.items():
        reason = _reason_for(name, mapping.filled)
        if name not in state and reason is not None:
            filled[name] = reason.reason
            state[name] = own if reason.value is None else torch.full_like(own, reason.value)
    problems += _misfits(state, wanted)
    if problems:
        shown = "; ".join(problems[:MAX_NAMES_SHOWN])
        more = f"; and {len(problems) - MAX_NAMES_SHOWN} more" if problems[MAX_NAMES_SHOWN:] else ""
        raise CheckpointError(f"{source}: {len(problems)} tensors do not fit: {shown}{more}")
    ordered = {name: state[name].detach().to(own.dtype).clone() for name, own in wanted.items()}
    return ordered, ImportReport(mapped, dropped, filled)


def renamed(tensors: Mapping[str, Tensor], rules: Sequence[Rule]) -> dict[str, Tensor]:
    """Return tensors by the names that rules give them; others keep their own."""
    result = {}
    for name, tensor in tensors.items():
        match = _first_match(name, rules)
        result[name if match is None else match[1]] = tensor
    return result


def matches(pattern: str, name: str) -> re.Match[str] | None:
    """Match a name with a pattern of stars and a percent sign."""
    expression = re.escape(pattern).replace(r"\*", r"(\d+)").replace("%", r"(\w+)")
    return re.fullmatch(expression, name)


def _first_match(name: str, rules: Sequence[Rule]) -> tuple[Rule, str] | None:
    for rule in rules:
        match = matches(rule.source, name)
        if match is not None:
            target = rule.target
            for part in match.groups():
                target = re.sub(r"[*%]", part, target, count=1)
            return rule, target
    return None


def _reason_for(name: str, reasons: Sequence[UnmappedKey]) -> UnmappedKey | None:
    return next((reason for reason in reasons if matches(reason.pattern, name)), None)


def _stack_rows(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Join `name[0]`, `name[1]`, ... to `name`, one number each."""
    state: dict[str, Tensor] = {}
    rows: dict[str, dict[int, Tensor]] = {}
    for name, tensor in found.items():
        match = re.fullmatch(r"(.*)\[(\d+)\]", name)
        if match is None or tensor.numel() != 1:
            state[name] = tensor
        else:
            rows.setdefault(match[1], {})[int(match[2])] = tensor.reshape(())
    for name, numbered in rows.items():
        state[name] = torch.stack([numbered[index] for index in sorted(numbered)])
    return state


def _misfits(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    missing = [f"{name} is missing" for name in wanted if name not in state]
    surplus = [f"{name} has no place in the model" for name in state if name not in wanted]
    misshapen = [
        f"{name} has {problem}"
        for name, own in wanted.items()
        if name in state and (problem := misfit(state[name], own)) is not None
    ]
    return missing + surplus + misshapen
