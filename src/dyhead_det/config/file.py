"""A YAML file -> a checked configuration, with all problems of the file in one error."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from dyhead_det.config.checks import contradictions
from dyhead_det.config.model import is_weight_name
from dyhead_det.config.renamed_keys import advice_on_old_key
from dyhead_det.config.schema import (
    AnySection,
    DatasetConfig,
    RunConfig,
    Section,
    did_you_mean,
    parse_section,
    to_plain,
)
from dyhead_det.config.yaml12 import MAX_CHARACTERS, MAX_DEPTH, read_yaml, write_yaml
from dyhead_det.errors import ConfigError
from dyhead_det.escaping import printable
from dyhead_det.files import open_file, video_advice

_MAX_BYTES = MAX_CHARACTERS
_MAX_SHOWN = 80
_MAX_PROBLEMS = 20

# Keys of a YOLO data set that are sections of a run too.
_YOLO_KEYS = frozenset(("train", "val", "test"))
_DATA_ADVICE = (
    "a folder of data is named in a configuration: dyhead-det config copy own_data, then "
    "dyhead-det train own_data.yaml --set data.root=FOLDER"
)


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file, apply ``key.path=value`` overrides and check the whole.

    Relative `data.root` and weight files are those of the current folder, as typed on a command
    line, and are made absolute, so that a checkpoint finds them from anywhere.

    Raises:
        ConfigError: With every problem of the file, one a line.
    """
    config = _with_absolute_paths(_load(RunConfig, Path(path), tuple(overrides)))
    if problems := contradictions(config):
        raise ConfigError(*(f"{path}: {problem}" for problem in problems))
    return config


def load_dataset_config(path: Path) -> DatasetConfig:
    """Read a YAML file with root, annotations and images; paths and errors as in `load_config`."""
    config = _load(DatasetConfig, path, ())
    return config.model_copy(update={"root": _absolute(config.root, "root")})


def to_yaml(config: Section) -> str:
    """Return the resolved configuration as YAML that `load_config` reads back."""
    return write_yaml(to_plain(config))


def _load(kind: type[AnySection], path: Path, overrides: tuple[str, ...]) -> AnySection:
    raw, problems = _read_file(path, kind)
    for override in overrides:
        problems += _apply_override(raw, override)
    try:
        section = parse_section(kind, raw)
    except ValidationError as error:
        problems += [_describe(details, kind) for details in error.errors()]
    if problems:
        more = len(problems) - _MAX_PROBLEMS
        shown = problems[:_MAX_PROBLEMS] + [f"and {more} more problems"] * (more > 0)
        raise ConfigError(*(f"{path}: {problem}" for problem in shown))
    return section


def _with_absolute_paths(config: RunConfig) -> RunConfig:
    root = _absolute(config.data.root, "data.root")
    data = config.data.model_copy(update={"root": root})
    backbone = config.model.backbone
    if backbone.weights not in ("imagenet", "none"):
        weights = _absolute(backbone.weights, "model.backbone.weights")
        backbone = backbone.model_copy(update={"weights": weights})
    start = config.model.weights
    if start is not None and not is_weight_name(start):
        start = _absolute(start, "model.weights")
    model = config.model.model_copy(update={"backbone": backbone, "weights": start})
    return config.model_copy(update={"data": data, "model": model})


def _absolute(path: str, key: str) -> str:
    try:
        return str(Path(path).expanduser().resolve())
    except (OSError, RuntimeError) as error:  # no such user; links in a circle
        raise ConfigError(f"{key}: {printable(path)} leads nowhere: {error}") from error


# --- what is written ----------------------------------------------------------------------------


def _read_file(path: Path, kind: type[Section]) -> tuple[dict[str, Any], list[str]]:
    """Read the top-level mapping and the problems of its spelling.

    Raises:
        ConfigError: If there is no mapping to go on with.
    """
    if advice := video_advice(path):
        raise ConfigError(advice)
    try:
        with open_file(path) as file:
            encoded = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        advice = f"; {_DATA_ADVICE}" if isinstance(error, IsADirectoryError) else ""
        raise ConfigError(f"{path}: cannot read the configuration: {reason}{advice}") from error
    if len(encoded) > _MAX_BYTES:
        raise ConfigError(f"{path}: not a configuration: larger than {_MAX_BYTES} bytes")
    try:
        raw, problems = read_yaml(encoded.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = encoded.count(b"\n", 0, error.start) + 1
        msg = f"{path}: not a YAML file: line {line}: no UTF-8 text; save it as UTF-8"
        raise ConfigError(msg) from error
    except ValueError as error:
        raise ConfigError(f"{path}: not a YAML file: {error}") from error
    if not isinstance(raw, dict):
        msg = f"{path}: expected sections ({', '.join(kind.model_fields)}) at the top level"
        raise ConfigError(msg)
    if {"names", "nc"} & raw.keys() and not raw.keys() & kind.model_fields.keys() - _YOLO_KEYS:
        msg = f"{path}: the description of a YOLO data set and no configuration; {_DATA_ADVICE}"
        raise ConfigError(msg)
    return raw, problems


def _apply_override(raw: dict[str, Any], override: str) -> list[str]:
    """Set one ``key.path=value`` in place; return what is wrong with it."""
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    shown = printable(override, max_length=_MAX_SHOWN)
    if not equals or not all(keys) or len(keys) > MAX_DEPTH:
        return [f"--set {shown}: write it as key.path=value, e.g. --set train.epochs=12"]
    try:
        value, problems = read_yaml(text)
    except ValueError as error:
        return [f"--set {shown}: not a YAML value: {error}"]
    section = raw
    for key in keys[:-1]:
        if not isinstance(section.get(key), dict):
            section[key] = {}
        section = section[key]
    section[keys[-1]] = value
    return [f"--set {shown}: {problem}" for problem in problems]


# --- problems, in words --------------------------------------------------------------------------


def _describe(details: ErrorDetails, kind: type[Section]) -> str:
    """Turn one of pydantic's errors into ``key: what, allowed values, did you mean``."""
    keys, section = _locate(details["loc"], kind)
    key = printable(".".join(keys) or "top level", max_length=_MAX_SHOWN)
    problem, context = details["type"], details.get("ctx", {})
    found = _show(details["input"])
    if problem == "extra_forbidden" and (advice := advice_on_old_key(key)):
        return f"{key}: {advice}"
    if problem == "extra_forbidden" and section is not None:
        known = list(section.model_fields)
        return f"{key}: unknown key; {did_you_mean(keys[-1], known)}known: {', '.join(known)}"
    if problem == "missing":
        return f"{key}: missing; it has no default"
    if problem in ("literal_error", "union_tag_invalid"):
        expected = str(context.get("expected") or context.get("expected_tags"))
        word = details["input"]
        if isinstance(word, dict):
            key, word = f"{key}.name", word.get("name")
        hint = did_you_mean(str(word), re.findall(r"'([^']*)'", expected))
        return f"{key}: {_show(word)} is none of {expected}; {hint}".rstrip("; ")
    if problem == "union_tag_not_found":
        return f"{key}.name: missing; it has no default"
    message = details["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if problem == "value_error":
        inner, colon, rest = message.partition(": ")
        is_section = isinstance(details["input"], dict)
        if is_section:
            place = printable(".".join([*keys, inner]), max_length=_MAX_SHOWN)
            return f"{place}: {rest}" if colon else f"{key}: {message}"
        return f"{key}: {found} {message}"
    hint = "; write true or false" if problem in ("bool_type", "bool_parsing") else ""
    return f"{key}: {found} is not {message}{hint}"


def _show(value: object) -> str:
    """Return a value as JSON, cut where it is long."""
    return printable(json.dumps(value, default=str, ensure_ascii=False), max_length=_MAX_SHOWN)


def _locate(
    loc: tuple[int | str, ...], kind: type[Section]
) -> tuple[list[str], type[Section] | None]:
    """Return the keys as the file spells them (without union tags), and the section they are in."""
    section: type[Section] | None = kind
    keys: list[str] = []
    pending: dict[str, type[Section]] = {}
    for part in loc:
        if part in pending:  # the tag of a section with variants
            section, pending = pending[str(part)], {}
            continue
        keys.append(str(part))
        field = section.model_fields.get(str(part)) if section else None
        if field is None:
            continue
        variants = _sections_in(field.annotation)
        pending = {_tag_of(variant): variant for variant in variants if len(variants) > 1}
        section = variants[0] if len(variants) == 1 else section
    return keys, section


def _sections_in(annotation: object) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections_in(part)]


def _tag_of(section: type[Section]) -> str:
    return str(get_args(section.model_fields["name"].annotation)[0])
