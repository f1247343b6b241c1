"""YAML 1.2 within bounds: text of strangers -> plain values, and back.

PyYAML reads YAML 1.1, where `010` is eight, `off` is false, `1:30` is ninety and `1e-4` is text. So
PyYAML is asked for the syntax only, `yaml.parse`; what the words mean is decided here.
"""

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml
from yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
)

from dyhead_det.escaping import printable

MAX_CHARACTERS = 1 << 18
MAX_DEPTH = 32
MAX_VALUES = 10_000
"""With what aliases repeat; the longest configuration has about 200."""
CHARACTERS_OF_A_VALUE = 64
"""Of which a longer text counts once more."""
MAX_DIGITS = 40

_TAG = "tag:yaml.org,2002:"
# The core schema, YAML 1.2.2 section 10.3.2, and the first characters, which PyYAML asks for.
_PATTERNS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}
_RESOLVERS = {kind: re.compile(rf"(?:{pattern})\Z") for kind, (pattern, _) in _PATTERNS.items()}
_KINDS_OF_SCALARS = (*_PATTERNS, "str")

# `${NAME}`, `${NAME:-default}`, and `$NAME` where a path begins.
_VARIABLE = re.compile(r"\$\{[^}]*\}|^\$[A-Za-z_]\w*(?=/|\Z)")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

_MERGE_KEY = "<<"


class YamlContent(NamedTuple):
    """Plain values, and what is wrong with their spelling although they could be read."""

    value: Any
    problems: list[str]


def read_yaml(text: str, *, is_foreign: bool = False) -> YamlContent:
    """Read one YAML document.

    Args:
        text: The document.
        is_foreign: Another program's, which may hold texts of several lines and `${NAME}`.

    Raises:
        ValueError: With the line, if it is none, too large, or holds what is no plain value.
    """
    return _Yaml12Reader(text, is_foreign=is_foreign).read()


def write_yaml(plain: dict[str, Any]) -> str:
    """Return plain values as YAML that reads equal by the rules of 1.1 and of 1.2."""
    return yaml.dump(plain, Dumper=_PlainDumper, sort_keys=False, width=100, allow_unicode=True)


@dataclass(slots=True)
class _Anchored:
    """What an anchor names: the value once it is complete, and how many values it counts."""

    value: Any = None
    num_values: int = 0
    is_complete: bool = False


class _Yaml12Reader:
    """The one place where our YAML differs from PyYAML's.

    * Plain words mean what the core schema of YAML 1.2 says: `010` is ten, `0o10` eight, and `yes`,
      `off`, `1_000`, `1:30` and dates are text.
    * Keys are words; one that is written twice is a problem. Tags that name anything but the plain
      types are refused.
    * An alias is a copy of its own, counted as if it were written out; an anchor in itself is
      refused.
    * The merge key of YAML 1.1 is read: `<<: *base` or `<<: [*first, *second]` brings in the keys
      that a mapping does not have itself, and the first of several wins.
    * Environment variables are not read: `${NAME}` is a problem.
    * Text has no control characters and no lone surrogates.
    """

    def __init__(self, text: str, *, is_foreign: bool = False) -> None:
        self._text = text
        self._is_foreign = is_foreign
        self._events: Iterator[Event] = iter(())
        self._anchors: dict[str, _Anchored] = {}
        self._num_values = 0
        self._problems: list[str] = []

    def read(self) -> YamlContent:
        if len(self._text) > MAX_CHARACTERS:
            raise ValueError(f"longer than {MAX_CHARACTERS} characters")
        self._events = _parse(self._text)
        return YamlContent(self._document(), self._problems)

    def _document(self) -> object:
        value: object = None
        num_documents = 0
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                num_documents += 1
                if num_documents > 1:
                    raise ValueError(f"{_line(event)}: a second document begins")
            elif isinstance(event, NodeEvent):
                value = self._value(event, depth=0)
        return value

    def _value(self, event: Event, *, depth: int) -> object:
        """Return the value that begins with an event, having read on to its end."""
        self._count(1, event)
        if isinstance(event, AliasEvent):
            return self._copy(event)
        first = self._num_values
        anchored = _Anchored()
        if isinstance(event, NodeEvent) and event.anchor is not None:
            self._anchors[event.anchor] = anchored
        if isinstance(event, ScalarEvent):
            anchored.value = self._scalar(event)
        elif isinstance(event, CollectionStartEvent):
            anchored.value = self._collection(event, depth=depth + 1)
        anchored.num_values = self._num_values - first + 1
        anchored.is_complete = True
        return anchored.value

    def _count(self, number: int, event: Event) -> None:
        self._num_values += number
        if self._num_values > MAX_VALUES:
            raise ValueError(
                f"{_line(event)}: more than {MAX_VALUES} values, repeated ones counted"
            )

    def _copy(self, event: AliasEvent) -> object:
        name = printable(event.anchor, max_length=80)
        anchored = self._anchors.get(event.anchor or "")
        if anchored is None:
            raise ValueError(f"{_line(event)}: *{name} stands before any &{name}")
        if not anchored.is_complete:
            raise ValueError(f"{_line(event)}: *{name} lies within &{name} itself")
        self._count(anchored.num_values - 1, event)
        return copy.deepcopy(anchored.value)

    def _collection(self, event: CollectionStartEvent, *, depth: int) -> object:
        if depth > MAX_DEPTH:
            raise ValueError(f"{_line(event)}: nested deeper than {MAX_DEPTH} levels")
        is_mapping = isinstance(event, MappingStartEvent)
        kind = "map" if is_mapping else "seq"
        if event.tag not in (None, "!", f"{_TAG}{kind}"):
            raise ValueError(f"{_line(event)}: {_tag_problem(event.tag)}")
        return self._mapping(depth=depth) if is_mapping else self._sequence(depth=depth)

    def _sequence(self, *, depth: int) -> list[object]:
        values = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            values.append(self._value(event, depth=depth))
        return values

    def _mapping(self, *, depth: int) -> dict[str, object]:
        own: dict[str, object] = {}
        merged: list[dict[str, object]] = []
        lines: dict[str, int] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            key = self._key(event)
            line = _line_number(event)
            if key in lines:
                self._problems.append(
                    f"{printable(key, max_length=80)}: written twice, in lines {lines[key]} and "
                    f"{line}"
                )
            lines[key] = line
            value_event = next(self._events)
            value = self._value(value_event, depth=depth)
            if key == _MERGE_KEY and isinstance(event, ScalarEvent) and event.implicit[0]:
                merged = _merge_sources(value, value_event)
            else:
                own[key] = value
        result: dict[str, object] = {}
        for source in reversed(merged):
            result.update(source)
        return {**result, **own}

    def _key(self, event: Event) -> str:
        if isinstance(event, AliasEvent):
            raise ValueError(f"{_line(event)}: an alias is no key")
        if not isinstance(event, ScalarEvent):
            raise ValueError(f"{_line(event)}: a list or a mapping is no key; keys are words")
        self._count(1, event)
        if event.tag not in (None, "!", f"{_TAG}str"):
            raise ValueError(f"{_line(event)}: {_tag_problem(event.tag)}")
        self._check_text(event)
        return str(event.value)

    def _scalar(self, event: ScalarEvent) -> object:
        text = event.value
        self._count(len(text) // CHARACTERS_OF_A_VALUE, event)
        if event.tag is None:
            kind = _kind_of(text) if event.implicit[0] else "str"
        else:
            kind = "str" if event.tag == "!" else event.tag.removeprefix(_TAG)
            if kind not in _KINDS_OF_SCALARS:
                raise ValueError(f"{_line(event)}: {_tag_problem(event.tag)}")
        if kind != "str":
            return _as_kind(kind, text, event)
        if self._is_foreign:
            return text
        self._check_text(event)
        if variable := _VARIABLE.search(text):
            self._problems.append(
                f"{_line(event)}: {printable(variable[0], max_length=80)}: environment variables "
                "are not read; write the value, or give it by --set, where the shell puts it in"
            )
        return text

    def _check_text(self, event: ScalarEvent) -> None:
        if match := _CONTROL.search(event.value):
            raise ValueError(f"{_line(event)}: {printable(match[0])} in a text")


def _parse(text: str) -> Iterator[Event]:
    """Yield the events of a text; whatever stops PyYAML is a ValueError with a line."""
    try:
        yield from yaml.parse(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{place}{printable(error.problem or error.context)}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        character = printable(text[error.position])
        raise ValueError(f"line {line}: {character} may not stand in YAML") from error
    except ValueError as error:  # PyYAML's own, of int() and chr()
        raise ValueError("a number or a \\U character that is too large") from error


def _line(event: Event) -> str:
    return f"line {_line_number(event)}"


def _line_number(event: Event) -> int:
    return 0 if event.start_mark is None else event.start_mark.line + 1


def _tag_problem(tag: str) -> str:
    shown = printable(tag.replace(_TAG, "!!"), max_length=80)
    return f"the tag {shown}: only plain values are read, without tags"


def _kind_of(text: str) -> str:
    return next((kind for kind, resolver in _RESOLVERS.items() if resolver.match(text)), "str")


def _as_kind(kind: str, text: str, event: Event) -> object:
    """Return the value of a word; numbers that nobody needs cost more than linear time."""
    if not _RESOLVERS[kind].match(text):
        raise ValueError(f"{_line(event)}: {printable(text, max_length=40)!r} is no {kind}")
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if len(text) > MAX_DIGITS:
        raise ValueError(f"{_line(event)}: a number of {len(text)} characters")
    if kind == "float":
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    if text.startswith(("0o", "0x")):
        return int(text, 0)
    return int(text)


def _merge_sources(value: object, event: Event) -> list[dict[str, object]]:
    values = value if isinstance(value, list) else [value]
    sources = [source for source in values if isinstance(source, dict)]
    if len(sources) < len(values):
        raise ValueError(f"{_line(event)}: `<<` takes a mapping or a list of mappings")
    return sources


class _PlainDumper(yaml.SafeDumper):
    """Writes lists in one line, and quotes every text that 1.1 or 1.2 reads as another type."""


def _represent_list(dumper: yaml.SafeDumper, values: list[Any]) -> yaml.SequenceNode:
    return dumper.represent_sequence(f"{_TAG}seq", values, flow_style=True)


_PlainDumper.add_representer(list, _represent_list)
for _kind, (_, _first_characters) in _PATTERNS.items():
    _PlainDumper.add_implicit_resolver(f"{_TAG}{_kind}", _RESOLVERS[_kind], _first_characters)
