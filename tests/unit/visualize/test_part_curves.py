"""Curves of the parts of a detector: drawn where they were logged."""

from dyhead_det.visualize.part_curves import plot_part_curves

LOGGED = [
    {"step": step, "loss": 1.0, "grad_norm/fpn": 2.0, "update_ratio/fpn": 0.0, "clipped": 0.5}
    for step in (1, 2)
]


def test_the_picture_is_drawn_even_where_a_part_stands_still(tmp_path):
    path = tmp_path / "parts.png"
    assert plot_part_curves([*LOGGED, {"step": 2, "AP": 0.5}], path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_without_logged_parts_there_is_no_picture(tmp_path):
    path = tmp_path / "parts.png"
    assert not plot_part_curves([{"step": 1, "loss": 1.0, "grad_norm": 3.0}], path)
    assert not path.exists()
