"""What all sections of a configuration are: frozen, strict, bounded, every field described."""

import difflib
import json
import re
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

AnySection = TypeVar("AnySection", bound="Section")


class Section(BaseModel):
    """A frozen section: unknown keys are errors and nothing is converted silently."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def setting(default: Any, description: str, *, unit: str | None = None) -> Any:  # noqa: ANN401 - as pydantic's Field
    """Declare a field of a section.

    Args:
        default: `...` where it has none.
        description: One or two sentences for the reference that is made from the schema.
        unit: What a number counts or measures.
    """
    unit_entry: dict[str, Any] = {} if unit is None else {"unit": unit}
    return Field(default, description=description, json_schema_extra=unit_entry)


def _without_control_characters(text: str) -> str:
    if re.search("[\x00-\x1f\x7f-\x9f\ud800-\udfff]", text):
        raise ValueError("has control characters in it")
    return text


# Bounds are far beyond what is sensible, and short of what a stranger's file could do harm with.
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=1e9)]
NonNegative = Annotated[float, Field(ge=0, le=1e9)]
Count = Annotated[int, Field(ge=1, le=10**6)]
Steps = Annotated[int, Field(ge=1, le=10**9)]
Triple = tuple[float, float, float]
PathText = Annotated[
    str, Field(min_length=1, max_length=4096), AfterValidator(_without_control_characters)
]


def parse_section(kind: type[AnySection], raw: dict[str, Any]) -> AnySection:
    """Check plain values, as `to_plain` returns them, against a section.

    Raises:
        pydantic.ValidationError: If a value does not fit.
    """
    # By way of JSON: in strict mode a list is a tuple there, and nothing else is converted.
    return kind.model_validate_json(json.dumps(raw))


def to_plain(config: Section) -> dict[str, Any]:
    """Return plain values: what a checkpoint stores and a YAML file shows."""
    plain: dict[str, Any] = config.model_dump(mode="json")
    return plain


def did_you_mean(word: str, known: tuple[str, ...] | list[str]) -> str:
    """Return ``"did you mean 'x'? "`` where a known word is near, else nothing."""
    near = difflib.get_close_matches(word[:80], known, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}? " if near else ""
