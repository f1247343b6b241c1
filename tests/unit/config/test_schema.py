"""The schema: every field is described and bounded, what cannot be built is refused."""

from typing import get_args

import pytest
from pydantic import ValidationError

from dyhead_det.config.schema import (
    DatasetConfig,
    RunConfig,
    Section,
    parse_config,
    parse_section,
    to_plain,
)

from conftest import make_config


def sections_of(annotation) -> list[type[Section]]:
    """Return a section with all that are within it; of other types those that they name."""
    is_section = isinstance(annotation, type) and issubclass(annotation, Section)
    own = [annotation] if is_section else []
    parts = get_args(annotation)
    if is_section:
        parts = [field.annotation for field in annotation.model_fields.values()]
    return own + [section for part in parts for section in sections_of(part)]


FIELDS = sorted(
    {
        (section, name)
        for section in [*sections_of(RunConfig), DatasetConfig]
        for name in section.model_fields
    },
    key=lambda pair: (pair[0].__name__, pair[1]),
)


def numbers_in(annotation) -> bool:
    parts = get_args(annotation)
    if isinstance(annotation, type) and annotation in (int, float):
        return True
    return any(numbers_in(part) for part in parts)


@pytest.mark.parametrize(("section", "name"), FIELDS, ids=lambda x: getattr(x, "__name__", x))
def test_every_field_has_a_description_and_every_number_a_unit(section, name):
    field = section.model_fields[name]
    assert field.description
    assert field.description.endswith((".", "timm/<model>."))
    has_unit = bool((field.json_schema_extra or {}).get("unit"))
    assert has_unit == (numbers_in(field.annotation) and not sections_of(field.annotation))


def with_value(dotted_key, value):
    plain = to_plain(make_config())
    *sections, key = dotted_key.split(".")
    section = plain
    for name in sections:
        section = section.setdefault(name, {}) if section.get(name) is not None else {}
    section[key] = value
    return plain


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 2**32),
        ("data.num_workers", 257),
        ("data.prefetch_factor", 2000),
        ("data.root", ""),
        ("data.root", "a\x00b"),
        ("data.train.images", "a\x1b[2J"),
        ("data.augment.large_scale_jitter", [2.0, 0.5]),
        ("data.augment.large_scale_jitter", [0.5, 1e6]),
        ("model.channels", 2**20),
        ("model.dyhead.num_blocks", 100_000),
        ("model.input.short_edge", 2**62),
        ("model.input.multi_scale", [64] * 101),
        ("model.input.pad_to_multiple", 2**20),
        ("model.backbone.name", "timm/hf-hub:someone/model"),
        ("model.detector.box_head_channels", 2**30),
        ("model.detector.anchor_sizes", [[8], [16], [32], [64], [128, 256]]),
        ("model.detector.anchor_sizes", [[], [], [], [], []]),
        ("model.detector.anchor_ratios", []),
        ("model.detector.rpn_bg_iou_thresh", 0.8),
        ("model.detector.box_bg_iou_thresh", 0.6),
        ("model.detector", {"name": "retinanet", "bg_iou_thresh": 0.6}),
        ("train.batch_size", 10**9),
        ("train.steps", 10**12),
        ("eval.batch_size", 10**6),
        ("optim.lr", 1e6),
    ],
)
def test_what_is_out_of_bounds_or_cannot_be_built_is_refused(key, value):
    with pytest.raises(ValidationError):
        parse_config(with_value(key, value))


def test_plain_values_come_back_equal():
    config = make_config()
    assert parse_config(to_plain(config)) == config
    data = DatasetConfig(root="r", annotations="a", images="i")
    assert parse_section(DatasetConfig, to_plain(data)) == data
