"""Ids are whole numbers, or text that is numbered."""

import pytest

from dyhead_det.data.coco.identifiers import Identifiers


def test_whole_numbers_stay_as_they_are_in_every_spelling():
    ids = Identifiers.of([7, "4", 9.0])
    assert ids.numbers.tolist() == [7, 4, 9]
    assert ids.texts() == []
    assert ids.rows_of(["7", 9, 4.0, 5, None, True, [7]]).tolist() == [0, 2, 1, -1, -1, -1, -1]


def test_text_is_numbered_in_the_order_of_the_file():
    ids = Identifiers.of(["b", "a", 12, "b"])
    assert ids.numbers.tolist() == [1, 2, 3, 1]
    assert ids.is_known.all()
    assert ids.texts() == ["b", "a", 12]
    assert ids.rows_of(["a", "12", "b", "c", None, []]).tolist() == [1, 2, 0, -1, -1, -1]


@pytest.mark.parametrize("missing", [None, [], "  ", True, 1.5, 2**63])
def test_a_record_without_an_id_is_nobodys(missing):
    for others in ([0, 5], ["x", "y"]):
        ids = Identifiers.of([missing, *others])
        assert ids.is_known.tolist() == [False, True, True]
        assert ids.rows_of([missing, *others]).tolist() == [-1, 1, 2]


def test_a_selection_keeps_its_numbers():
    ids = Identifiers.of(["b", "a", "c"])
    kept = ids.select(ids.numbers != 2)
    assert kept.numbers.tolist() == [1, 3]
    assert kept.rows_of(["c", "a", "b"]).tolist() == [1, -1, 0]
    assert [kept[row] for row in range(2)] == ["b", "c"]


def test_no_ids_know_nothing():
    assert Identifiers.of([]).rows_of([1, "a"]).tolist() == [-1, -1]
