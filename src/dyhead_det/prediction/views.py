"""Look at an image more than once: in tiles, flipped, at several scales; merge what is found.

Both are called as a detector is: a list of images in, a prediction for each out.
"""

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms

from dyhead_det.contracts import Prediction
from dyhead_det.models.detectors import Detector
from dyhead_det.prediction.arguments import MAX_EDGE
from dyhead_det.prediction.thread_pool import batched

# A box that ends within this share of a tile's edge is taken for cut there: boxes of cut objects
# rarely end on the very border.
_NEAR_BORDER = 1 / 64
# A cut box goes if a whole one of its class covers this share of it and is not much weaker.
_COVERED = 0.8
_MUCH_WEAKER = 0.5


class Augmented(nn.Module):
    """Test-time augmentation: a detector that also looks at images flipped and at other scales.

    Args:
        detector: in evaluation mode, on its device.
        flip: also look from left to right, at each of the scales.
        scales: factors of the size that the detector resizes images to, besides 1.
        nms_thresh: IoU above which the weaker of two boxes of a class is dropped.
        detections_per_img: the most that is returned.
    """

    def __init__(
        self,
        detector: nn.Module,
        *,
        flip: bool,
        scales: Sequence[float],
        nms_thresh: float,
        detections_per_img: int,
    ) -> None:
        super().__init__()
        self.detector = detector
        # In a list of lists they are no submodules: their weights would be counted again.
        self._at_scales = [[at_scale(detector, scale) for scale in scales]]
        self.flip = flip
        self.nms_thresh = nms_thresh
        self.detections_per_img = detections_per_img

    @property
    def detectors(self) -> list[nn.Module]:
        """Those that it asks: the detector as it is, and at each scale."""
        return [self.detector, *itertools.chain.from_iterable(self._at_scales)]

    def forward(self, images: Sequence[Tensor]) -> list[Prediction]:
        """Return one prediction per image, in the image's own pixels, best first.

        Args:
            images: (3, H, W) each, float RGB in [0, 1], of any sizes.
        """
        views = [detector(list(images)) for detector in self.detectors]
        if self.flip:
            views += [_detect_flipped(detector, images) for detector in self.detectors]
        return [
            _take(_merge(found, self.nms_thresh), slice(self.detections_per_img))
            for found in zip(*views, strict=True)
        ]


def at_scale(detector: nn.Module, scale: float) -> Detector:
    """Return a detector that resizes images to other edges; it shares the weights.

    A copy, since changing the size for a while would change it in other threads.

    Raises:
        TypeError: where it is none of ours, such as an exported file, whose size is fixed.
    """
    if not isinstance(detector, Detector):
        msg = f"the size that {type(detector).__name__} resizes to cannot be changed"
        raise TypeError(msg)
    tensors = itertools.chain(detector.parameters(), detector.buffers())
    scaled = copy.deepcopy(detector, {id(tensor): tensor for tensor in tensors})
    short_edge, long_edge = (
        min(MAX_EDGE, max(1, round(edge * scale)))
        for edge in (detector.transform.min_size[-1], detector.transform.max_size)
    )
    scaled.set_test_size(short_edge=short_edge, long_edge=long_edge)
    return scaled


class Tiles:
    """A detector that looks at large images in overlapping tiles, and at the whole as well.

    The whole shows what is larger than the overlap, which no tile may show uncut. Images that fit
    into a tile are looked at as without tiles.

    Args:
        detect: the detector.
        size: edge of a tile in pixels.
        overlap: the least share of its edge that a tile has in common with the next one.
        nms_thresh: IoU above which the weaker of two boxes of a class is dropped.
    """

    def __init__(
        self,
        detect: Callable[[Sequence[Tensor]], Iterable[Prediction]],
        *,
        size: int,
        overlap: float,
        nms_thresh: float,
    ) -> None:
        self.detect = detect
        self.size = size
        self.overlap = overlap
        self.nms_thresh = nms_thresh

    def __call__(self, images: Sequence[Tensor], *, batch_size: int) -> Iterator[Prediction]:
        """Yield one prediction per image, in the image's own pixels, best first.

        Of a tile there are as many detections as the detector gives of an image; of an image as
        many as are left of all its tiles.

        Args:
            images: (3, H, W) each, as `detect` takes them, of any sizes.
            batch_size: tiles that go through the detector together.
        """
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        tiles_of = [tile_image(*size_hw, self.size, self.overlap) for size_hw in sizes]
        crops = (
            image[:, tile.top : tile.bottom, tile.left : tile.right].contiguous()
            for image, tiles in zip(images, tiles_of, strict=True)
            for tile in tiles
        )
        found = itertools.chain.from_iterable(map(self.detect, batched(crops, batch_size)))
        for tiles in tiles_of:
            of_tiles = list(itertools.islice(found, len(tiles)))
            yield self._merge(of_tiles, tiles) if len(tiles) > 1 else of_tiles[0]

    def _merge(self, predictions: Sequence[Prediction], tiles: Sequence["Tile"]) -> Prediction:
        near = max(2.0, self.size * _NEAR_BORDER)
        whole, cut = [], []
        for prediction, tile in zip(predictions, tiles, strict=True):
            boxes = prediction["boxes"]
            boxes = boxes + boxes.new_tensor([tile.left, tile.top, tile.left, tile.top])
            moved = Prediction(
                boxes=boxes, scores=prediction["scores"], labels=prediction["labels"]
            )
            is_cut, is_shown_whole = _cut_boxes(boxes, tile, near)
            whole.append(_take(moved, ~is_cut))
            cut.append(_take(moved, is_cut & ~is_shown_whole))
        all_whole = _join(whole)
        pieces = [_take(each, ~_is_covered(each, by=all_whole)) for each in cut]
        return _merge([all_whole, *pieces], self.nms_thresh)


class Tile(NamedTuple):
    """A part of an image, in its pixels, and where the tiles beside it end or begin.

    An infinite `left_ends` means that there is no tile to the left; so for the other three.
    """

    left: int
    top: int
    right: int
    bottom: int
    left_ends: float = math.inf
    above_ends: float = math.inf
    right_begins: float = math.inf
    below_begins: float = math.inf


def tile_image(height: int, width: int, size: int, overlap: float) -> list[Tile]:
    """Return overlapping tiles that cover an image, and last the whole; only that if it fits."""
    whole = Tile(0, 0, width, height)
    if max(height, width) <= size:
        return [whole]
    columns, rows = _spans(width, size, overlap), _spans(height, size, overlap)
    return [
        *(
            Tile(left, top, right, bottom, left_ends, above_ends, right_begins, below_begins)
            for top, bottom, above_ends, below_begins in rows
            for left, right, left_ends, right_begins in columns
        ),
        whole,
    ]


def _spans(length: int, size: int, overlap: float) -> list[tuple[int, int, float, float]]:
    """Cut one edge, evenly: begin and end of each tile, end of the one before, begin of the next.

    The last tile ends with the image and is as large as the others, for the sake of batches.
    """
    num = max(1, math.ceil((length - size) / (size * (1 - overlap))) + 1)
    begins = [round(i * (length - size) / max(1, num - 1)) for i in range(num)]
    begins = begins if length > size else [0]
    ends = [min(begin + size, length) for begin in begins]
    return list(zip(begins, ends, [math.inf, *ends], [*begins[1:], math.inf], strict=False))


def _cut_boxes(boxes: Tensor, tile: Tile, near: float) -> tuple[Tensor, Tensor]:
    """Tell which boxes a tile cuts, and which of them the tile across the border shows further.

    That tile shows the object further if its part here does not reach back to where that tile
    begins. Of two neighbors never both leave an object to each other: the one that shows it uncut
    keeps it.

    Args:
        boxes: (N, 4) in pixels of the image.
        tile: where they were found.
        near: pixels from the border within which a box is taken for cut.

    Returns:
        Two masks (N,).
    """
    x0, y0, x1, y1 = boxes.unbind(1)
    sides = (
        (x0 <= tile.left + near, x1 < tile.left_ends - near, tile.left_ends),
        (y0 <= tile.top + near, y1 < tile.above_ends - near, tile.above_ends),
        (x1 >= tile.right - near, x0 > tile.right_begins + near, tile.right_begins),
        (y1 >= tile.bottom - near, y0 > tile.below_begins + near, tile.below_begins),
    )
    nowhere = torch.zeros_like(x0, dtype=torch.bool)
    is_cut, is_shown_further = nowhere, nowhere
    for touches, ends_before, neighbor in sides:
        if math.isfinite(neighbor):
            is_cut = is_cut | touches
            is_shown_further = is_shown_further | (touches & ends_before)
    return is_cut, is_shown_further


def _is_covered(cut: Prediction, by: Prediction) -> Tensor:
    """Tell which cut boxes are parts of whole ones of their class that are not much weaker, (N,).

    By intersection over the part's own area: its IoU with the whole may be anything.
    """
    top_left = torch.maximum(cut["boxes"][:, None, :2], by["boxes"][:, :2])  # (N, M, 2)
    bottom_right = torch.minimum(cut["boxes"][:, None, 2:], by["boxes"][:, 2:])
    intersections = (bottom_right - top_left).clamp(min=0).prod(dim=2)
    areas = (cut["boxes"][:, 2:] - cut["boxes"][:, :2]).prod(dim=1)
    is_part = intersections >= _COVERED * areas[:, None]
    is_of_class = cut["labels"][:, None] == by["labels"]
    is_as_strong = by["scores"] >= _MUCH_WEAKER * cut["scores"][:, None]
    return (is_part & is_of_class & is_as_strong).any(dim=1)


def _detect_flipped(detector: nn.Module, images: Sequence[Tensor]) -> Iterator[Prediction]:
    # Not by torchvision.transforms.v2, which imports PyTorch's compiler, for seconds.
    flipped = detector([image.flip(-1) for image in images])
    for image, prediction in zip(images, flipped, strict=True):
        left, top, right, bottom = prediction["boxes"].unbind(dim=1)
        width = image.shape[-1]
        boxes = torch.stack((width - right, top, width - left, bottom), dim=1)
        yield Prediction(boxes=boxes, scores=prediction["scores"], labels=prediction["labels"])


def _merge(predictions: Sequence[Prediction], nms_thresh: float) -> Prediction:
    """Drop what overlaps a better one of its class; return the rest, best first."""
    joined = _join(predictions)
    kept = batched_nms(joined["boxes"], joined["scores"], joined["labels"], nms_thresh)
    return _take(joined, kept)


def _join(predictions: Sequence[Prediction]) -> Prediction:
    return Prediction(
        boxes=torch.cat([prediction["boxes"] for prediction in predictions]),
        scores=torch.cat([prediction["scores"] for prediction in predictions]),
        labels=torch.cat([prediction["labels"] for prediction in predictions]),
    )


def _take(prediction: Prediction, which: Tensor | slice) -> Prediction:
    return Prediction(
        boxes=prediction["boxes"][which],
        scores=prediction["scores"][which],
        labels=prediction["labels"][which],
    )
