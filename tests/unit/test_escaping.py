"""Names from outside: shown, never obeyed, whatever shows them."""

import csv
import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dyhead_det.escaping import (
    csv_cell,
    html_text,
    listed,
    markdown_text,
    printable,
    printable_lines,
    without_passwords,
)

TEXTS = st.text(st.characters())


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://me:secret@camera:554/1", "rtsp://me:***@camera:554/1"),
        ("rtsp://:s@cret:@camera", "rtsp://:***@camera"),
        ("http://cam/a?user=me&pwd=secret&ch=1#t", "http://cam/a?user=me&pwd=***&ch=1#t"),
        ("https://cam/a.m3u8?access_token=secret", "https://cam/a.m3u8?access_token=***"),
        ("rtsp://cam/user=me_password=s_ch=1", "rtsp://cam/user=me_password=***"),
        ("rtsp://camera:554/1", "rtsp://camera:554/1"),
        ("rtsp://camera:554/a@b", "rtsp://camera:554/a@b"),
        ("videos/a:b@c.mp4", "videos/a:b@c.mp4"),
    ],
)
def test_addresses_are_shown_without_their_passwords(address, shown):
    assert without_passwords(address) == shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("stop sign", "stop sign"),
        ("Küche 台所　犬", "Küche 台所　犬"),  # wide space included
        ("\u06a9\u200c\u062e", "\u06a9\u200c\u062e"),  # Persian needs its joiner
        ("a\nerror: b", r"a\nerror: b"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("\x9b31m", r"\x9b31m"),  # the same in one byte
        ("a\u202etxt.exe", r"a\u202etxt.exe"),
        ("a\u2028b\u2029c\x85d", r"a\u2028b\u2029c\x85d"),
        ("\ud800", r"\ud800"),
        (7, "7"),
    ],
)
def test_one_line_that_a_terminal_shows(name, shown):
    assert printable(name) == shown


@given(TEXTS)
def test_whatever_comes_becomes_one_line_of_shown_characters(text):
    shown = printable(text)
    shown.encode()  # no lone surrogate is left
    assert len(shown.splitlines()) <= 1
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cs", "Zl", "Zp"}
    assert printable(shown) == shown


def test_long_text_is_cut():
    assert printable("x" * 9, max_length=4) == "xxx…"
    assert printable("x" * 4, max_length=4) == "xxxx"


def test_several_lines_stay_several():
    assert printable_lines("a\n b\x1b\n") == "a\n b\\x1b\n"


def test_lists_name_the_first():
    assert listed(["a", "b\n"]) == r"a, b\n"
    assert listed(range(12), max_named=10) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
    assert listed([]) == ""


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a|b", r"a\|b"),
        ("**bold** _it_ `x`", r"\*\*bold\*\* \_it\_ \`x\`"),
        ("![x](http://x)", r"\!\[x\](http://x)"),
        ("<img src=x>", r"\<img src=x\>"),
        ("a\n# b", r"a\\n\# b"),  # shown as `a\n# b`
    ],
)
def test_markdown_shows_the_name(name, shown):
    assert markdown_text(name) == shown


def test_html_shows_the_name():
    assert html_text("<b a='1'>&\n") == r"&lt;b a=&#x27;1&#x27;&gt;&amp;\n"


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", " =1", "\t=1"])
def test_a_spreadsheet_computes_no_name(name):
    assert csv_cell(name).startswith("'")


@given(TEXTS)
def test_a_name_is_one_cell_of_one_row(text):
    file = io.StringIO(newline="")
    csv.writer(file).writerow([csv_cell(text), "next"])
    file.seek(0)
    assert list(csv.reader(file)) == [[csv_cell(text), "next"]]
    assert csv_cell("square") == "square"
