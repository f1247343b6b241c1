"""A YAML file -> a checked configuration, with all problems of the file in one error."""

import json
import re
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from dyhead_det.config.renamed_keys import RENAMED_KEYS
from dyhead_det.config.schema import (
    AnySection,
    DatasetConfig,
    RunConfig,
    Section,
    did_you_mean,
    parse_section,
    to_plain,
)
from dyhead_det.errors import ConfigError


def load_config(path: Path, overrides: tuple[str, ...] = ()) -> RunConfig:
    """Read a YAML file, apply ``key.path=value`` overrides and check the whole.

    Relative `data.root` and weight files are those of the current folder, as typed on a command
    line, and are made absolute, so that a checkpoint finds them from anywhere.

    Raises:
        ConfigError: With every problem of the file, one a line.
    """
    return _with_absolute_paths(_load(RunConfig, path, overrides))


def load_dataset_config(path: Path) -> DatasetConfig:
    """Read a YAML file with root, annotations and images; errors as in `load_config`."""
    return _load(DatasetConfig, path, ())


def to_yaml(config: Section) -> str:
    """Return the resolved configuration as YAML that `load_config` reads back."""
    return yaml.dump(to_plain(config), Dumper=_PlainDumper, sort_keys=False, width=100)


def _load(kind: type[AnySection], path: Path, overrides: tuple[str, ...]) -> AnySection:
    raw, problems = _read_yaml(path, kind)
    for override in overrides:
        problems += _apply_override(raw, override)
    try:
        section = parse_section(kind, raw)
    except ValidationError as error:
        problems += [_describe(details, kind) for details in error.errors()]
    if problems:
        raise ConfigError(*(f"{path}: {problem}" for problem in problems))
    return section


def _with_absolute_paths(config: RunConfig) -> RunConfig:
    root = str(Path(config.data.root).expanduser().resolve())
    data = config.data.model_copy(update={"root": root})
    backbone = config.model.backbone
    if backbone.weights not in ("imagenet", "none"):
        weights = str(Path(backbone.weights).expanduser().resolve())
        backbone = backbone.model_copy(update={"weights": weights})
    start = config.model.weights
    if start is not None:
        start = str(Path(start).expanduser().resolve())
    model = config.model.model_copy(update={"backbone": backbone, "weights": start})
    return config.model_copy(update={"data": data, "model": model})


# --- strict YAML ---------------------------------------------------------------------------------


class _StrictLoader(yaml.SafeLoader):
    """YAML 1.2's plain values (`1e-4` is a number, `off` and dates are text), no repeated keys."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 - as PyYAML declares it

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.problems: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, int] = {}
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            if key_node.value in seen:
                self.problems.append(
                    f"{key_node.value}: written twice, in lines {seen[key_node.value]} and {line}"
                )
            seen[str(key_node.value)] = line
        return super().construct_mapping(node, deep)


class _PlainDumper(yaml.SafeDumper):
    """Writes lists of plain values in one line."""


def _represent_list(dumper: yaml.SafeDumper, values: list[Any]) -> yaml.SequenceNode:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)


_PlainDumper.add_representer(list, _represent_list)

for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf)|\.(nan|NaN)",
        list("-+.0123456789"),
    ),
):
    _StrictLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first
    )
_PlainDumper.yaml_implicit_resolvers = _StrictLoader.yaml_implicit_resolvers  # quote what it reads


def _parse_yaml(text: str) -> tuple[Any, list[str]]:
    loader = _StrictLoader(text)
    try:
        return loader.get_single_data(), loader.problems
    finally:
        loader.dispose()


def _read_yaml(path: Path, kind: type[Section]) -> tuple[dict[str, Any], list[str]]:
    """Read the top-level mapping and the problems of its spelling.

    Raises:
        ConfigError: If there is no mapping to go on with.
    """
    try:
        raw, problems = _parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"{path}: cannot read the configuration: {error.strerror}"
        raise ConfigError(msg) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"{path}: not a YAML file: {' '.join(str(error).split())}"
        raise ConfigError(msg) from error
    if not isinstance(raw, dict):
        msg = f"{path}: expected sections ({', '.join(kind.model_fields)}) at the top level"
        raise ConfigError(msg)
    return raw, problems


def _apply_override(raw: dict[str, Any], override: str) -> list[str]:
    """Set one ``key.path=value`` in place; return what is wrong with it."""
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        return [f"--set {override}: write it as key.path=value, e.g. --set train.epochs=12"]
    try:
        value, problems = _parse_yaml(text)
    except yaml.YAMLError as error:
        return [f"--set {override}: not a YAML value: {' '.join(str(error).split())}"]
    section = raw
    for key in keys[:-1]:
        if not isinstance(section.get(key), dict):
            section[key] = {}
        section = section[key]
    section[keys[-1]] = value
    return problems


# --- problems, in words --------------------------------------------------------------------------


def _describe(details: ErrorDetails, kind: type[Section]) -> str:
    """Turn one of pydantic's errors into ``key: what, allowed values, did you mean``."""
    keys, section = _locate(details["loc"], kind)
    key = ".".join(keys) or "top level"
    problem, context = details["type"], details.get("ctx", {})
    found = json.dumps(details["input"], default=str)
    if problem == "extra_forbidden" and key in RENAMED_KEYS:
        return f"{key}: is called {RENAMED_KEYS[key]} now; rename it"
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
        return f"{key}: {json.dumps(word, default=str)} is none of {expected}; {hint}".rstrip("; ")
    if problem == "union_tag_not_found":
        return f"{key}.name: missing; it has no default"
    message = details["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if problem == "value_error":
        inner, colon, rest = message.partition(": ")
        is_section = isinstance(details["input"], dict)
        if is_section:
            return f"{'.'.join([*keys, inner])}: {rest}" if colon else f"{key}: {message}"
        return f"{key}: {found} is unknown; {message}"
    return f"{key}: {found} is not {message}"


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
