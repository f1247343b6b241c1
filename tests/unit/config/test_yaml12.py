"""YAML 1.2 within bounds: what words mean, what is refused with its line, and what it may cost."""

import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dyhead_det.config.yaml12 import MAX_CHARACTERS, MAX_DEPTH, MAX_VALUES, read_yaml, write_yaml


# YAML 1.2.2, section 10.3.2 (core schema), has these examples or follows from its patterns.
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("08", 8),
        ("-09", -9),
        ("0o10", 8),
        ("0x1F", 31),
        ("+12", 12),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("190:20:30", "190:20:30"),
        ("0b1", "0b1"),
        ("1e-4", 1e-4),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("2026-01-01", "2026-01-01"),
        ("2026-01-01T10:00:00Z", "2026-01-01T10:00:00Z"),
        ("yes", "yes"),
        ("off", "off"),
        ("y", "y"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("'12'", "12"),
        ("! 12", "12"),
        ("!!str 12", "12"),
        ("!!int 12", 12),
        ("=", "="),
        ("<<", "<<"),
    ],
)
def test_a_word_means_what_yaml_1_2_says(text, value):
    read = read_yaml(f"key: {text}\n")
    assert read.value == {"key": value}
    assert type(read.value["key"]) is type(value)
    assert read.problems == []


def test_a_byte_order_mark_and_an_empty_document_are_read():
    assert read_yaml("\ufeffa: 1").value == {"a": 1}
    assert read_yaml("# nothing").value is None


def test_an_alias_is_a_copy_of_its_own():
    value = read_yaml("a: &x {k: [1]}\nb: *x\n").value
    value["b"]["k"].append(2)
    assert value == {"a": {"k": [1]}, "b": {"k": [1, 2]}}


# The rules of https://yaml.org/type/merge.html; the last two are its own example, shortened.
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<<: *base\n  y: 3", {"x": 1, "y": 3}),
        ("y: 3\n  <<: *base", {"x": 1, "y": 3}),
        ("<<: [*base, *other]", {"x": 1, "y": 2, "z": 9}),
        ("<<: [*other, *base]", {"x": 8, "y": 2, "z": 9}),
        ("'<<': 1", {"<<": 1}),
    ],
)
def test_merge_keys_bring_in_what_a_mapping_has_not(text, value):
    head = "base: &base {x: 1, y: 2}\nother: &other {x: 8, z: 9}\nkey:\n  "
    assert read_yaml(head + text).value["key"] == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\n<<: 3", "line 2: `<<` takes a mapping or a list of mappings"),
        ("a: 1\n? [1, 2]\n: 3", "line 2: a list or a mapping is no key"),
        ("? {a: 1}\n: 3", "line 1: a list or a mapping is no key"),
        ("&a k: 1\n*a : 2", "line 2: an alias is no key"),
        ("seed: !!int abc", "line 1: 'abc' is no int"),
        ("seed: !!python/object/apply:os.system ['x']", "line 1: the tag !!python/object/apply:os"),
        ("a: !!binary aGk=", "line 1: the tag !!binary: only plain values"),
        ("a: !!set {x}", "line 1: the tag !!set"),
        ("a: !own {x: 1}", "line 1: the tag !own"),
        ("!!timestamp a: 1", "line 1: the tag !!timestamp"),
        ("%TAG ! tag:x.org,2000:\n---\na: !y 1", "line 3: the tag tag:x.org,2000:y"),
        ("a: &a {b: *a}", "line 1: *a lies within &a itself"),
        ("a: &a\n  - *a", "line 2: *a lies within &a itself"),
        ("a: *b", "line 1: *b stands before any &b"),
        ("seed: " + "9" * 5000, "line 1: a number of 5000 characters"),
        ("seed: 1." + "9" * 5000, "line 1: a number of 5002 characters"),
        ('a: "x\\0y"', r"line 1: \x00 in a text"),
        ('"a\\e": 1', r"line 1: \x1b in a text"),
        ('a: "\\ud800"', r"line 1: \ud800 in a text"),
        ('a: "\\U00110000"', "a number or a \\U character that is too large"),
        ("%YAML " + "9" * 5000 + ".1\n---\na: 1", "a number or a \\U character that is too large"),
        ("%YAML 2.0\n---\na: 1", "line 1, column 1: found incompatible YAML document"),
        ("a: 1\nb: \x07", r"line 2: \x07 may not stand in YAML"),
        ("a: !<%FF> b", "line 1, column 6: 'utf-8' codec can't decode"),
        ("a: 1\n---\nb: 2", "line 2: a second document begins"),
        ("a: b: c", "line 1, column 5: mapping values are not allowed here"),
        ("a: {", "line 1, column 5: expected the node content"),
        ("[" * 200_000, f"line 1: nested deeper than {MAX_DEPTH} levels"),
        ("- " * 5000, f"line 1: nested deeper than {MAX_DEPTH} levels"),
        ("a:\n" + "".join(f"{' ' * i}a:\n" for i in range(1, 100)), "line 33: nested deeper than"),
        ("a" * (MAX_CHARACTERS + 1), f"longer than {MAX_CHARACTERS} characters"),
        ("[" + "1," * 20_000, f"line 1: more than {MAX_VALUES} values"),
        ("a: &a " + "x" * 60_000 + "\nb: [" + "*a," * 99 + "]", "line 2: more than"),
    ],
)
def test_what_is_no_plain_value_or_too_much_is_refused_with_its_line(text, problem):
    with pytest.raises(ValueError, match=re.escape(problem)):
        read_yaml(text)


def test_an_alias_bomb_is_refused_before_it_is_built():
    lines = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    for previous, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{','.join([f'*{previous}'] * 9)}]")
    # Written out, the lists are 10, 91, 820, 7381 values: within the bounds, the fifth is not.
    with pytest.raises(ValueError, match="line 5: more than 10000 values, repeated ones counted"):
        read_yaml("\n".join(lines))


def test_a_key_written_twice_is_a_problem_with_both_lines():
    assert read_yaml("a: 1\nb:\n  c: 1\n  c: 2\na: 3").problems == [
        "c: written twice, in lines 3 and 4",
        "a: written twice, in lines 1 and 5",
    ]


@pytest.mark.parametrize("text", ["${DATA}/coco", "x/${DATA:-y}", "$DATA/coco", "$DATA"])
def test_an_environment_variable_is_named_as_not_read(text):
    (problem,) = read_yaml(f"root: {text!r}").problems
    assert problem.startswith(f"line 1: ${'{DATA' if '{' in text else 'DATA'}")
    assert "environment variables are not read" in problem


@pytest.mark.parametrize("text", ["images$1", "a$b/c", "100$"])
def test_a_dollar_in_a_name_is_no_variable(text):
    assert read_yaml(f"root: {text!r}").problems == []


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=20),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)


@given(plain=st.dictionaries(st.from_regex(r"[a-z_]{1,9}", fullmatch=True), plain_values))
def test_what_is_written_is_read_back_equal_here_and_by_pyyaml(plain):
    text = write_yaml(plain)
    assert yaml.safe_load(text) == plain
    if "$" not in text and "\ufeff" not in text:
        assert read_yaml(text) == (plain, [])
