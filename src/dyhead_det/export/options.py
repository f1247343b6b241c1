"""What an exported file is to be like, and which wishes exclude each other."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dyhead_det.errors import ConfigError

MAX_BATCH = 1024

Batch = int | Literal["dynamic"]
Deform = Literal["op", "gather"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """The kind of a file.

    takes_uint8: it takes pixels in 0..255, not floats in [0, 1].
    batch: None for a file of one image; a number for so many of one size, or ``dynamic`` for any
        number of them.
    half: weights and maps in float16, from the resized image to the heads' results.
    int8: a folder of images like those that it will see, to measure the ranges of 8-bit maps on.
    deform: deformable convolutions by ONNX's operator, or by sampling and ordinary convolutions.
    short_edge: it resizes images to this shorter edge; see `predictor.load`.
    long_edge: bound of the longer edge.
    """

    takes_uint8: bool = False
    batch: Batch | None = None
    half: bool = False
    int8: Path | None = None
    deform: Deform = "op"
    short_edge: int | None = None
    long_edge: int | None = None

    @property
    def precision(self) -> Literal["float32", "float16", "int8"]:
        """What most products are computed in."""
        if self.half:
            return "float16"
        return "float32" if self.int8 is None else "int8"

    def require_possible(self) -> None:
        """Refuse what excludes each other.

        Raises:
            ConfigError: naming the options.
        """
        if self.half and self.int8 is not None:
            raise ConfigError("--half and --int8 are two precisions of one file: give one of them")


def parse_batch(text: str | None) -> Batch | None:
    """Read a number of images, or ``dynamic``.

    Raises:
        ValueError: if it is something else.
    """
    if text is None:
        return None
    if text == "dynamic":
        return "dynamic"
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    if not 1 <= number <= MAX_BATCH:
        msg = f"a number of images from 1 to {MAX_BATCH}, or dynamic, not {text!r}"
        raise ValueError(msg)
    return number
