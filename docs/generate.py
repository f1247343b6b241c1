"""Pages written from the code: every configuration key and every command."""

import inspect
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from dyhead_det.cli.app import app
from dyhead_det.config.schema import RunConfig


def write_generated(folder: Path) -> None:
    """Write `configuration.md` and `commands.md`; files that stay the same are not touched."""
    folder.mkdir(exist_ok=True)
    for name, text in (
        ("configuration.md", configuration_page(RunConfig)),
        ("commands.md", commands_page(app)),
    ):
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def configuration_page(run: type[BaseModel]) -> str:
    """Return every section of a run as a heading with a table of its keys."""
    lines = [
        "# Configuration reference",
        "",
        "Made from the schema (`dyhead-det config schema` prints it as JSON schema, for editors).",
        "A run is one YAML file; `--set key=value` changes any value on the command line.",
        "",
        *_section("", run),
    ]
    return "\n".join(lines) + "\n"


def _section(path: str, section: type[BaseModel], *, variant: str = "") -> Iterator[str]:
    title = f"`{path}`" if path else "A run"
    yield f"## {title}{f': {variant}' if variant else ''}"
    yield ""
    yield _cell(inspect.getdoc(section) or "", keep_paragraphs=True)
    yield ""
    fields = {
        name: field
        for name, field in section.model_fields.items()
        if not (variant and name == "name")
    }
    if not fields:
        yield "It has no keys of its own."
    else:
        yield "| key | type | default | meaning |"
        yield "|---|---|---|---|"
    below: list[tuple[str, type[BaseModel], str]] = []
    for name, field in fields.items():
        key = f"{path}.{name}" if path else name
        sections = list(_sections_of(field.annotation))
        below.extend((key, each, _variant(each) if len(sections) > 1 else "") for each in sections)
        kind = "section" if sections else _kind(field)
        yield f"| `{name}` | {kind} | {_default(field)} | {_cell(field.description or '')} |"
    yield ""
    for key, each, of_variant in below:
        yield from _section(key, each, variant=of_variant)


def _sections_of(annotation: Any) -> Iterator[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) not in (tuple, list, dict):
        for argument in typing.get_args(annotation):
            yield from _sections_of(argument)


def _variant(section: type[BaseModel]) -> str:
    """Return the `name:` that chooses this section among its siblings."""
    field = section.model_fields.get("name")
    names = typing.get_args(field.annotation) if field else ()
    return " or ".join(f"`name: {name}`" for name in names) or section.__name__


def _kind(field: FieldInfo) -> str:
    """Return type, bounds and unit of a field."""
    extra = field.json_schema_extra
    unit = extra.get("unit") if isinstance(extra, dict) else None
    text = _type_name(field.annotation) + _bounds(field.metadata)
    return f"{text} ({unit})" if unit else text


def _type_name(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is typing.Literal:
        text = " \\| ".join(f"`{_yaml(each)}`" for each in arguments)
    elif origin in (typing.Union, types.UnionType):
        text = " or ".join(_type_name(each) for each in arguments)
    elif origin is typing.Annotated:
        rules = [rule for each in arguments[1:] for rule in getattr(each, "metadata", [each])]
        text = _type_name(arguments[0]) + _bounds(rules)
    elif origin in (tuple, list):
        inner = [_type_name(each) for each in arguments if each is not Ellipsis]
        text = f"list of {inner[0]}" if len(set(inner)) == 1 else f"list of ({', '.join(inner)})"
    elif origin is dict:
        text = f"map of {_type_name(arguments[0])} to {_type_name(arguments[1])}"
    elif annotation is type(None):
        text = "`null`"
    else:
        text = {int: "integer", float: "number", str: "text", bool: "true or false"}.get(
            annotation, getattr(annotation, "__name__", str(annotation))
        )
    return text


def _bounds(rules: typing.Iterable[Any]) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return "".join(
        f", {sign} {bound:.10g}"
        for rule in rules
        for name, sign in signs.items()
        if (bound := getattr(rule, name, None)) is not None
    )


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "*required*"
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined or isinstance(default, BaseModel):
        return "" if not isinstance(default, BaseModel) else _named(default)
    return f"`{_yaml(default)}`"


def _named(section: BaseModel) -> str:
    name = getattr(section, "name", None)
    return f"`name: {name}`" if isinstance(name, str) else "see below"


def _yaml(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(_yaml(each) for each in value)}]"
    return str(value)


def _cell(text: str, *, keep_paragraphs: bool = False) -> str:
    if keep_paragraphs:
        return text
    return " ".join(text.split()).replace("|", "\\|")


def commands_page(program: typer.Typer) -> str:
    """Return every command with its arguments and options, as `--help` tells them."""
    lines = ["# Commands", "", "What `--help` prints, on one page.", ""]
    for path, text in _help_texts(typer.main.get_command(program), "dyhead-det", None):
        lines += [f"## `{path}`", "", "```text", text, "```", ""]
    return "\n".join(lines)


def _help_texts(command: Any, name: str, parent: Any) -> Iterator[tuple[str, str]]:
    context = command.make_context(
        name, [], parent=parent, resilient_parsing=True, terminal_width=100, max_content_width=100
    )
    yield context.command_path, command.get_help(context)
    for child in getattr(command, "commands", {}).values():
        if not child.hidden:
            yield from _help_texts(child, child.name, context)
