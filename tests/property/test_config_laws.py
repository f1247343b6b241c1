"""Configurations that strangers wrote: only our own errors, in lines that a terminal can show."""

import unicodedata
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from dyhead_det.config.file import load_config
from dyhead_det.config.schema import RunConfig
from dyhead_det.errors import ConfigError

from conftest import make_config

TEXT = """
seed: 0
data:
  root: demo/data  # relative
  train: {annotations: train.json, images: &i train}
  val: {annotations: val.json, images: *i}
  augment: {horizontal_flip: 0.5}
model:
  detector: {name: fasterrcnn, anchor_sizes: [[16], [32], [64], [128], [192]]}
  dyhead: {num_blocks: 1, attention: [scale, task]}
  input: {short_edge: 160, long_edge: 160, mean: [0.5, 0.5, 0.5]}
optim: {name: adamw, lr: 1e-3}
schedule: {warmup_steps: 20}
train: {epochs: 6, ema: {decay: 0.99}}
"""

# What has once brought a traceback, another value, or all memory.
SEEDS = [
    "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(
        f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n"
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "data: &d {root: x, train: *d}\nmodel: {detector: {name: fcos}}\ntrain: {steps: 1}\n",
    'data: {root: "~nosuchuser/x", train: {annotations: a, images: b}}\n',
    "seed: " + "9" * 5000,
    "? [1, 2]\n: 3\n",
    'data: {root: "a\\0b", train: {annotations: a, images: b}}\n',
    "seed: !!int abc\n",
    "seed: 08\n",
    "<<: 1",
    "[" * 5000,
]

WORDS = r"""
~ null 010 08 0o9 1_000 1:30 yes off 2026-01-01 1e999 -.inf .nan '' [] {} [[]] {a: b} !!int !x *a
&a << <<: ${HOME} $X/y "\0" "\e[2J" "\ud800" \ud7fc -1 0 1.5 | - ? % @ ` --- ... # ' " } ] : ,
"""
words = st.sampled_from([*WORDS.split(), "\t", " ", "\n", "\x07", "\ufeff", "\u202e", "9" * 50])


def problems_of(path: Path, *overrides: str) -> list[str]:
    """Load a file; return the lines of its error, none where it loads."""
    try:
        assert isinstance(load_config(path, overrides), RunConfig)
    except ConfigError as error:
        return str(error).splitlines()
    return []


def assert_shown_well(lines: list[str]) -> None:
    assert len(lines) <= 21
    assert all(len(line) < 1000 for line in lines)
    shown = {unicodedata.category(character) for line in lines for character in line}
    assert not shown & {"Cc", "Cs", "Zl", "Zp"}


@st.composite
def mutated(draw, text=TEXT):
    """Replace, drop or double pieces of a file."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        piece = draw(words | st.just(text[start:end] * 2) | st.text(max_size=4))
        text = text[:start] + piece + text[end:]
    return text


@given(text=mutated() | mutated("".join(SEEDS[1:3])) | st.text(max_size=60))
@example(text=SEEDS[0])
@example(text=SEEDS[1])
@example(text=SEEDS[2])
@example(text=SEEDS[3])
@example(text=SEEDS[4])
@example(text=SEEDS[5])
@example(text=SEEDS[6])
@example(text=SEEDS[7])
@example(text=SEEDS[8])
@example(text=SEEDS[9])
def test_a_mutated_file_loads_or_is_refused_in_lines(text, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "mutated.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    assert_shown_well(problems_of(path))


def keys_of(plain: dict, prefix: str = "") -> list[str]:
    keys = []
    for key, value in plain.items():
        keys.append(prefix + key)
        if isinstance(value, dict):
            keys += keys_of(value, f"{prefix}{key}.")
    return keys


ALL_KEYS = keys_of(make_config().model_dump(mode="json"))
keys = st.sampled_from([*ALL_KEYS, "model.body", "a.b.c", "x[0]", "", ".", "model."])
values = words | st.integers().map(str) | st.floats().map(str) | st.text(max_size=12)


@given(key=keys | st.text(max_size=12), value=values, sign=st.sampled_from(["=", "==", "", ":"]))
def test_any_override_is_taken_or_refused_in_lines(key, value, sign, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "plain.yaml"
    if not path.exists():
        path.write_text(TEXT)
    assert_shown_well(problems_of(path, key + sign + value))


@given(number=st.integers(0, 2**32 - 1), zeros=st.integers(0, 8))
def test_a_number_with_leading_zeros_is_that_number(number, zeros, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "seed.yaml"
    if not path.exists():
        path.write_text(TEXT)
    assert load_config(path, (f"seed={'0' * zeros}{number}",)).seed == number
