"""Text files are bounded, and what is no text is told with its line."""

import pytest

from dyhead_det.data.formats.text_files import read_lines, read_text
from dyhead_det.errors import DatasetError


def test_lines_are_without_blanks_and_byte_order_mark(tmp_path):
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbf a b \r\n\r\n\tc\n")
    assert read_lines(tmp_path / "a") == ["a b", "c"]


def test_what_is_too_large_is_not_read_in_part(tmp_path):
    (tmp_path / "a").write_text("123456")
    assert read_text(tmp_path / "a", max_bytes=6) == "123456"
    with pytest.raises(ValueError, match="larger than 5 bytes"):
        read_text(tmp_path / "a", max_bytes=5)


def test_what_is_no_text_is_told_with_its_line(tmp_path):
    (tmp_path / "a").write_bytes(b"one\n\xff\n")
    with pytest.raises(DatasetError, match="a cannot be read: line 2: no UTF-8 text"):
        read_lines(tmp_path / "a")
