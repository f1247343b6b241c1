"""New names of images: the old ones where they can be written and are free."""

import pytest

from dyhead_det.data.formats.output import _new_name


def names(written, *, is_flat):
    taken = set()
    return [_new_name(name, "val", taken, is_flat=is_flat) for name in written]


@pytest.mark.parametrize(
    ("written", "is_flat", "new"),
    [
        (["a.jpg", "b/a.jpg"], False, ["a.jpg", "b/a.jpg"]),
        (["a.jpg", "b/a.jpg"], True, ["a.jpg", "b_a.jpg"]),
        (["a.jpg", "a.jpg", "a.jpg"], True, ["a.jpg", "val_a.jpg", "a_jpg.jpg"]),
        (["a.jpg", "a.png", "A.png"], False, ["a.jpg", "a_png.png", "A_2.png"]),
        (["a\nb.jpg", " a.jpg", "a .jpg"], False, ["a_b.jpg", "_a.jpg", "a .jpg"]),
        (["a.b.jpg", ".jpg"], False, ["a.b.jpg", ".jpg"]),
    ],
)
def test_stems_are_unique_and_lines_hold_them(written, is_flat, new):
    assert names(written, is_flat=is_flat) == new
