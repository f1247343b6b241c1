"""Sheets of one cell size, and outcomes that are told apart without their hue too."""

import itertools

import numpy as np
import torch

from dyhead_det.visualize.draw import draw_detections
from dyhead_det.visualize.sheet import (
    STYLES,
    ImageWithOutcomes,
    Outcome,
    contact_sheet,
    outcome_sheet,
)

PURPLE = (120, 10, 120)  # no shade of the ink on the paper


def purple_image(height, width):
    return torch.tensor(PURPLE, dtype=torch.uint8)[:, None, None].expand(3, height, width)


def scored(*kinds, height=300, width=300):
    """An image with a box of each kind, side by side."""
    outcomes = [
        Outcome(kind, (10 + 100 * i, 100, 80 + 100 * i, 200), f"{kind} box")
        for i, kind in enumerate(kinds)
    ]
    return ImageWithOutcomes("a.jpg", purple_image(height, width), outcomes)


def drawn(*images, width=1200):
    """The rows of the sheet below its legend, as pixels."""
    sheet = np.asarray(outcome_sheet(images, width=width, note=""))
    is_picture = (sheet == PURPLE).all(axis=2).any(axis=1)
    return sheet[is_picture.argmax() :]


def has(pixels, kind):
    return bool((pixels == STYLES[kind].color).all(axis=2).any())


def test_each_kind_has_its_color_and_is_drawn_where_it_is():
    for kind in STYLES:
        pixels = drawn(scored(kind))
        assert [has(pixels, other) for other in STYLES] == [other == kind for other in STYLES]
    pixels = drawn(scored("hit", "missed", "false"))
    first, second, third = np.split(pixels[:, : 3 * (pixels.shape[1] // 3)], 3, axis=1)
    assert has(first, "hit")
    assert has(second, "missed")
    assert has(third, "false")


def test_kinds_differ_in_brightness_for_people_who_do_not_see_their_hues():
    """A ratio of 1.5 of WCAG's relative luminance is plainly seen side by side."""

    def luminance(color):
        linear = [((v / 255 + 0.055) / 1.055) ** 2.4 for v in color]
        return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for one, other in itertools.combinations(STYLES.values(), 2):
        darker, lighter = sorted([luminance(one.color), luminance(other.color)])
        assert (lighter + 0.05) / (darker + 0.05) >= 1.5


def test_only_what_was_missed_is_dashed():
    def share_of_left_edge(kind):
        image = ImageWithOutcomes(
            "a.jpg", purple_image(300, 300), [Outcome(kind, (60.0, 100, 250, 200), "")]
        )
        pixels = drawn(image, width=600)
        rows, columns = np.where((pixels == STYLES[kind].color).all(axis=2))
        edge = rows[columns == columns.min()]
        return len(edge) / (edge.max() - edge.min() + 1)

    assert share_of_left_edge("hit") == 1
    assert share_of_left_edge("false") == 1
    assert 0.4 < share_of_left_edge("missed") < 0.7


def test_images_of_any_shape_fill_cells_of_one_size():
    """Of five square cells four stand in a row; no image is larger or much smaller than its own."""
    images = [scored(height=h, width=w) for h, w in [(300, 300), (100, 300), (300, 100)]]
    images += [scored(height=40, width=40), scored(height=900, width=900)]
    sheet = outcome_sheet(images, width=800, note="")
    assert 800 < sheet.width < 800 + 5 * 10
    num_purple = (np.asarray(sheet) == PURPLE).all(axis=2).sum()
    assert abs(num_purple - (3 * 200 * 200 + 2 * 200 * 67)) < 1000


def test_captions_of_hits_are_left_out_where_they_would_hide_the_image():
    def amount_of_color(num_hits):
        boxes = [(10.0 + 20 * i, 10, 25 + 20 * i, 25) for i in range(num_hits)]
        outcomes = [Outcome("hit", box, "a long caption 99%") for box in boxes]
        pixels = drawn(ImageWithOutcomes("a.jpg", purple_image(300, 300), outcomes))
        return (pixels == STYLES["hit"].color).all(axis=2).sum() / num_hits

    assert amount_of_color(13) < amount_of_color(12) / 2


def test_the_legend_names_every_kind_also_on_a_narrow_sheet():
    for images, width in (([scored()], 400), ([scored()] * 8, 1600)):
        pixels = np.asarray(outcome_sheet(images, width=width, note="(a note)"))
        assert all(has(pixels, kind) for kind in STYLES)


def test_a_contact_sheet_lays_pictures_out_in_rows():
    pictures = [draw_detections(purple_image(400, 400), [], [], None, []) for _ in range(5)]
    sheet = contact_sheet(pictures, [f"picture {i}" for i in range(5)], columns=2, tile=100)
    pixels = np.asarray(sheet)
    is_picture = (pixels == PURPLE).all(axis=2)
    assert is_picture.sum() == 5 * 100 * 100
    assert 2 * 100 < sheet.width < 2 * 100 + 50
    assert 3 * 100 < sheet.height < 3 * 150
