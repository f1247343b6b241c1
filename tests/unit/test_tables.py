"""Tables for people: aligned where they are text, escaped where names come from outside."""

from dyhead_det.tables import markdown_table, text_table, write_csv


def test_numbers_stand_to_the_right_and_names_to_the_left():
    rows = [("cat", 7, "0.500"), ("a long name", 1234, "-")]
    assert text_table(("class", "boxes", "AP"), rows).splitlines() == [
        "class        boxes     AP",
        "cat              7  0.500",
        "a long name   1234      -",
    ]


def test_letters_that_take_two_columns_are_counted_so():
    first, second = text_table(("", "n"), [("猫", 1)]).splitlines()
    assert (first, second) == ("    n", "猫  1")


def test_a_name_stays_in_its_cell_whatever_it_holds():
    name = "a\nb|c\x1b[31m"
    assert text_table(("class", "n"), [(name, 1)]).count("\n") == 1
    assert "\x1b" not in text_table(("class", "n"), [(name, 1)])
    line = markdown_table(("class", "n"), [(name, 1)]).splitlines()[2]
    assert line == "| a\\\\nb\\|c\\\\x1b\\[31m | 1 |"


def test_a_name_of_a_million_letters_does_not_widen_every_line():
    lines = text_table(("class", "n"), [("n" * 10**6, 1), ("cat", 2)]).splitlines()
    assert max(map(len, lines)) < 300
    assert lines[1].endswith("n…  1")


def test_markdown_has_a_rule_that_aligns_numbers():
    table = markdown_table(("", "n", "share"), [("`x`", 1, "3 (5%)")], escape=str)
    assert table.splitlines() == [
        "|  | n | share |",
        "| --- | ---: | ---: |",
        "| `x` | 1 | 3 (5%) |",
    ]


def test_a_table_without_rows_is_its_header():
    assert text_table(("a", "b"), []) == "a  b"
    assert markdown_table(("a", "b"), []).splitlines() == ["| a | b |", "| --- | --- |"]


def test_a_csv_file_has_no_formulas_and_no_half_of_a_surrogate_pair(tmp_path):
    write_csv(tmp_path / "t.csv", ("=name", "n"), iter([("-1+1", -1), ("a\ud800", None)]))
    assert (tmp_path / "t.csv").read_bytes() == b"'=name,n\r\n'-1+1,-1\r\na\\ud800,\r\n"
