"""What the demo data set draws: shapes by name, how large, how turned, how many, how hidden."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DemoStyle:
    """A kind of drawn data set.

    description: Of the data set, in its files; also what tells one kind from the other.
    shapes: Category ids by name; they have gaps, as those of COCO.
    hues: The color that a shape tends to, 0 to 1; one that is not named has any color.
    most_shapes: In a picture.
    diameters: The least and the greatest, as a part of the picture's edge.
    greatest_tilt: In radians, both ways.
    greatest_stretch: How many times longer than wide a shape gets.
    least_visible: What must stay visible of a shape when others are drawn on it.
    num_tries: Places that are tried for a shape.
    """

    description: str
    shapes: Mapping[str, int]
    hues: Mapping[str, float]
    most_shapes: int
    diameters: tuple[float, float]
    greatest_tilt: float
    greatest_stretch: float
    least_visible: float
    num_tries: int


EASY = DemoStyle(
    description="dyhead-det demo: shapes over textured backgrounds",
    shapes={"disc": 1, "box": 3, "triangle": 4, "star": 8, "ring": 11},
    # Like fruit, each kind of shape tends to a color of its own.
    hues={"disc": 0.0, "box": 0.6, "triangle": 0.35, "star": 0.14, "ring": 0.82},
    most_shapes=4,
    diameters=(0.08, 0.64),
    greatest_tilt=np.pi / 16,
    greatest_stretch=1.0,
    least_visible=0.85,
    num_tries=20,
)

HARD = DemoStyle(
    description="dyhead-det demo: crowds of turned and stretched shapes of all sizes and colors",
    shapes={
        **EASY.shapes,
        "cross": 12,
        "arrow": 15,
        "crescent": 16,
        "heart": 20,
        "bolt": 21,
    },
    hues={},
    most_shapes=20,
    diameters=(0.04, 0.64),
    greatest_tilt=np.pi,
    greatest_stretch=2.0,
    least_visible=0.5,
    num_tries=5,
)

STYLES = {style.description: style for style in (EASY, HARD)}

_TURN = np.linspace(0, 2 * np.pi, 72, endpoint=False)
_HALF_TURN = np.linspace(-np.pi / 2, np.pi / 2, 36)

# Corners of shapes that are not regular, pixels down and to the right; the farthest is at 1.
_CORNERS: dict[str, list[tuple[float, float]]] = {
    "cross": [
        (x * a, y * b)
        for x, y in ((1, 1), (-1, 1), (-1, -1), (1, -1))
        for a, b in (((0.94, 0.33), (0.33, 0.33), (0.33, 0.94))[:: 1 if x * y > 0 else -1])
    ],
    "arrow": [(1, 0), (0.1, 0.8), (0.1, 0.3), (-0.9, 0.3), (-0.9, -0.3), (0.1, -0.3), (0.1, -0.8)],
    "crescent": [
        *((np.cos(a) - 0.3, np.sin(a)) for a in _HALF_TURN),
        *((0.45 * np.cos(a) - 0.3, np.sin(a)) for a in _HALF_TURN[::-1]),
    ],
    "heart": [
        (
            0.06 * 16 * np.sin(a) ** 3,
            -0.06 * (13 * np.cos(a) - 5 * np.cos(2 * a) - 2 * np.cos(3 * a) - np.cos(4 * a)),
        )
        for a in _TURN
    ],
    "bolt": [(0.35, -0.9), (-0.55, 0.15), (-0.05, 0.15), (-0.35, 0.9), (0.55, -0.2), (0.05, -0.2)],
}


def outline(name: str, angle: float, stretch: float, direction: float) -> Floats:
    """Return the corners of a shape around the origin, none farther than 1, (n, 2).

    Args:
        name: Of the shape.
        angle: By which it is turned, in radians.
        stretch: How many times it is pressed together, 1 for not at all.
        direction: In which it is, in radians.
    """
    corners = _turned_corners(name, angle)
    axis = np.array([np.cos(direction), np.sin(direction)])
    pressed: Floats = corners - (1 - 1 / stretch) * (corners @ axis)[:, None] * axis
    return pressed


def _turned_corners(name: str, angle: float) -> Floats:
    if name in _CORNERS:
        corners = np.array(_CORNERS[name])
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        turned: Floats = corners @ turn / np.linalg.norm(corners, axis=1).max()
        return turned
    num_corners = {"box": 4, "triangle": 3, "star": 10}.get(name, 72)
    upright = np.pi / 4 if name == "box" else -np.pi / 2
    angles = upright + angle + np.arange(num_corners) * 2 * np.pi / num_corners
    radii = np.ones(num_corners)
    if name == "star":
        radii[1::2] = 0.5
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]
