"""Pictures with boxes: where the ink goes, and that nothing falls out of the picture."""

import itertools

import numpy as np
import pytest
import torch

from dyhead_det.visualize.draw import (
    READABLE_EDGE,
    _font,
    _outlines,
    _overlaps,
    _plate_positions,
    _text_color,
    class_color,
    draw_detections,
    shortened,
)

GRAY = 120


def gray_image(height, width):
    return torch.full((3, height, width), GRAY, dtype=torch.uint8)


def test_a_box_is_outlined_in_its_class_color_on_its_own_pixels():
    picture = draw_detections(gray_image(400, 400), [[100, 200, 300, 380]], [3], None, "abcd")
    pixels = np.asarray(picture)
    assert picture.size == (400, 400)
    for x, y in [(100, 380 - 1), (300 - 1, 380 - 1), (300 - 1, 200), (200, 379), (100, 300)]:
        assert tuple(pixels[y, x]) == class_color(3)
    assert tuple(pixels[300, 200]) == (GRAY, GRAY, GRAY)  # the object itself stays visible


def test_the_image_that_is_given_stays_as_it_was():
    image = gray_image(400, 400)
    draw_detections(image, [[10, 10, 390, 390]], [0], [0.5], ["cell"])
    assert (image == GRAY).all()


def test_no_boxes_leave_the_picture_as_it_is():
    picture = draw_detections(gray_image(330, 340), torch.zeros(0, 4), [], [], [])
    assert (np.asarray(picture) == GRAY).all()


def test_the_best_of_two_equal_boxes_is_seen():
    box = [50, 100, 300, 300]
    picture = draw_detections(gray_image(400, 400), [box, box], [0, 1], [0.9, 0.2], "ab")
    assert picture.getpixel((50, 250)) == class_color(0)


def test_small_images_are_enlarged_with_their_boxes():
    picture = draw_detections(gray_image(40, 30), [[10, 20, 30, 40]], [0], [0.9], ["cell"])
    assert picture.size == (240, 320)
    assert max(picture.size) >= READABLE_EDGE
    assert picture.getpixel((10 * 8, 39 * 8)) == class_color(0)
    assert picture.getpixel((239, 250)) == class_color(0)


def test_large_images_are_reduced_with_their_boxes():
    picture = draw_detections(
        gray_image(800, 1600), [[400, 200, 800, 800]], [0], None, ["cell"], longer_edge=400
    )
    assert picture.size == (400, 200)
    for x, y in [(100, 199), (199, 199), (199, 60), (150, 199)]:
        assert picture.getpixel((x, y)) == class_color(0)
    assert picture.getpixel((210, 150)) == (GRAY, GRAY, GRAY)


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (3000, 40), (40, 40), (900, 1200)])
def test_any_boxes_are_drawn_on_any_size(size):
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(150, 4, generator=generator) * 2 * max(size) - max(size) / 2
    names = ["x", "a class with a name far longer than any picture could ever be wide " * 5]
    labels = [i % 2 for i in range(150)]
    picture = draw_detections(gray_image(*size), boxes, labels, torch.rand(150), names)
    enlargement = picture.width // size[1]
    assert picture.size == (size[1] * enlargement, size[0] * enlargement)


def test_outlines_are_whole_pixels_inside_the_picture():
    boxes = [[-5, 2.6, 4.2, 500], [7, 7, 7, 7], [9, 9, 3, 3], [120, 120, 130, 130]]
    outlines = _outlines(boxes, 1, (100, 80))
    assert outlines[0] == (0, 2, 4, 79)
    assert outlines[1] == (7, 7, 7, 7)
    for left, top, right, bottom in outlines:
        assert 0 <= left <= right < 100
        assert 0 <= top <= bottom < 80


def test_a_label_stands_above_its_box_where_there_is_room():
    assert _plate_positions((50, 50, 150, 150), (40, 12), (200, 200))[0] == (50, 38)


def test_a_label_goes_inside_a_large_box_at_the_upper_edge_and_below_a_small_one():
    assert _plate_positions((50, 5, 150, 150), (40, 12), (200, 200))[0] == (50, 5)
    assert _plate_positions((50, 5, 150, 30), (40, 12), (200, 200))[0] == (50, 31)


def test_labels_never_leave_the_picture():
    for x, y, w, h in itertools.product([0, 100, 190], [0, 100, 190], [1, 10, 300], [1, 10, 300]):
        outline = (x, y, min(x + w, 199), min(y + h, 199))
        for left, top in _plate_positions(outline, (40, 12), (200, 200)):
            assert 0 <= left <= 160
            assert 0 <= top <= 188


def test_overlap_does_not_count_touching_edges():
    taken = np.array([[10, 10, 20, 20]])
    assert _overlaps((15, 15, 30, 30), taken)
    assert not _overlaps((20, 10, 30, 20), taken)
    assert not _overlaps((0, 0, 5, 5), np.empty((0, 4), dtype=np.int64))


def test_long_names_end_with_an_ellipsis_within_the_width():
    font = _font((640, 480))
    text = shortened("a name that does not fit", font, 60)
    assert text.startswith("a na")
    assert text.endswith("…")
    assert font.getlength(text) <= 60
    assert shortened("cat", font, 60) == "cat"


@pytest.mark.parametrize("letter", ["i", ".", "W"])
def test_a_name_longer_than_pillow_measures_is_cut_as_any_other(letter):
    font = _font((64, 64))
    text = shortened(letter * 2_000_000, font, 60)
    assert text == shortened(letter * 200, font, 60)
    assert font.getlength(text) <= 60


def test_text_is_black_on_light_and_white_on_dark_colors():
    assert _text_color((255, 255, 0)) == (0, 0, 0)
    assert _text_color((0, 0, 139)) == (255, 255, 255)


@pytest.mark.parametrize("label", range(80))
def test_text_is_readable_on_every_class_color(label):
    """WCAG asks for a contrast of 4.5; black or white always reaches it."""

    def luminance(color):
        linear = [
            v / 255 / 12.92 if v / 255 <= 0.04045 else ((v / 255 + 0.055) / 1.055) ** 2.4
            for v in color
        ]
        return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    color = class_color(label)
    darker, lighter = sorted([luminance(color), luminance(_text_color(color))])
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5


def test_class_colors_are_fixed_and_the_first_twenty_are_far_apart():
    assert class_color(0) == (255, 38, 51)  # a saved picture can be compared with a new one
    colors = np.array([class_color(label) for label in range(20)], dtype=float)
    distances = np.linalg.norm(colors[:, None] - colors[None], axis=2)
    assert distances[~np.eye(20, dtype=bool)].min() > 50
