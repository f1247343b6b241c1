"""Packed texts come back as they were, in the bytes that they need."""

import numpy as np
import pytest

from dyhead_det.data.coco.packed_text import PackedText

TEXTS = ["a.jpg", "", "größe.png", "日本/1.png", "x" * 5000]


def test_texts_come_back_in_order():
    packed = PackedText.pack(TEXTS)
    assert list(packed) == TEXTS
    assert len(packed) == 5
    assert packed[-1] == TEXTS[-1]


def test_a_selection_is_packed_again():
    flags = np.array([True, False, True, False, False])
    assert list(PackedText.pack(TEXTS).select(flags)) == ["a.jpg", "größe.png"]


def test_the_longest_text_does_not_set_the_length_of_all():
    packed = PackedText.pack([*["a"] * 1000, "b" * 100_000])
    assert packed.buffer.nbytes == 101_000


def test_nothing_packs_to_nothing():
    packed = PackedText.pack([])
    assert list(packed) == []
    with pytest.raises(IndexError):
        packed[0]
