"""Tiles and test-time augmentation around a detector that finds whatever is in its image."""

import itertools

import pytest
import torch
from torch import nn

from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.models.detectors import build_detector
from dyhead_det.prediction.arguments import Views
from dyhead_det.prediction.predictor import Predictor
from dyhead_det.prediction.views import Augmented, Tiles, at_scale, tile_image

from conftest import SMALL_DETECTORS, make_config

CATEGORIES = CategoryMap((Category("cat", 7), Category("dog", 3)))
TILE, OVERLAP = 100, 0.3


def detections(boxes, scores):
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "scores": torch.tensor(scores, dtype=torch.float32),
        "labels": torch.zeros(len(scores), dtype=torch.int64),
    }


class FindsPatches(nn.Module):
    """Finds each patch of one color: the box of what is visible; brighter is surer."""

    def __init__(self, *, largest=10**6):
        super().__init__()
        self.largest = largest
        self.batches = []

    def forward(self, images):
        self.batches.append([tuple(image.shape[1:]) for image in images])
        return [self._find(image[0]) for image in images]

    def _find(self, plane):
        if max(plane.shape) > self.largest:
            return detections([], [])
        values = sorted({float(value) for value in plane.unique() if value}, reverse=True)
        boxes = []
        for value in values:
            y, x = torch.nonzero(plane == value, as_tuple=True)
            boxes.append([int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1])
        return detections(boxes, values)


def image_of(*boxes, height=250, width=330):
    """Draw patches, the first the brightest, on black."""
    image = torch.zeros(3, height, width)
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        image[:, y0:y1, x0:x1] = 0.9 - 0.1 * number
    return image


def look(detector, image, *, batch_size=4):
    tiles = Tiles(detector, size=TILE, overlap=OVERLAP, nms_thresh=0.5)
    (prediction,) = tiles([image], batch_size=batch_size)
    return prediction


@pytest.mark.parametrize(("width", "height"), [(20, 20), (9, 28), (28, 9)])
def test_an_object_smaller_than_the_overlap_comes_once_and_whole_wherever_it_lies(width, height):
    """The whole image shows nothing here: the tiles alone must do it, at borders and corners."""
    for x, y in itertools.product(range(0, 330 - width, 23), range(0, 250 - height, 37)):
        box = [x, y, x + width, y + height]
        found = look(FindsPatches(largest=TILE), image_of(box))
        assert found["boxes"].tolist() == [box]


@pytest.mark.parametrize(("width", "height"), [(60, 50), (99, 20), (160, 120), (330, 250)])
def test_an_object_larger_than_the_overlap_comes_once_and_whole(width, height):
    for x, y in itertools.product(range(0, 331 - width, 37), range(0, 251 - height, 41)):
        box = [x, y, x + width, y + height]
        assert look(FindsPatches(), image_of(box))["boxes"].tolist() == [box]


def test_what_the_whole_image_does_not_show_stays_in_pieces():
    found = look(FindsPatches(largest=TILE), image_of([20, 20, 320, 60]))
    assert len(found["boxes"]) > 1
    assert found["boxes"][:, 0].min() == 20
    assert found["boxes"][:, 2].max() == 320


def test_a_whole_box_that_is_much_weaker_costs_no_piece():
    class DoubtsLargeImages(FindsPatches):
        def _find(self, plane):
            found = super()._find(plane)
            return {**found, "scores": found["scores"] * (1.0 if max(plane.shape) <= TILE else 0.1)}

    found = look(DoubtsLargeImages(), image_of([20, 20, 320, 60]))
    assert float(found["scores"].max()) == pytest.approx(0.9)


def test_objects_of_all_tiles_are_kept_best_first():
    boxes = [[10, 10, 30, 30], [200, 180, 230, 220], [85, 60, 105, 90], [300, 5, 329, 20]]
    found = look(FindsPatches(), image_of(*boxes))
    assert found["boxes"].tolist() == boxes
    assert found["scores"].tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6])


def test_images_that_fit_into_a_tile_go_through_as_without_tiles():
    images = [image_of([1, 2, 30, 40], height=TILE, width=TILE), image_of([5, 5, 9, 9], height=50)]
    detector = FindsPatches()
    small = [image[:, :, :TILE] for image in images]
    tiles = Tiles(detector, size=TILE, overlap=OVERLAP, nms_thresh=0.5)
    found = list(tiles(small, batch_size=2))
    assert detector.batches == [[(100, 100), (50, 100)]]
    for one, plain in zip(found, FindsPatches()(small), strict=True):
        assert all(torch.equal(one[key], plain[key]) for key in ("boxes", "scores", "labels"))


def test_tiles_go_through_in_batches_of_the_size_asked_for():
    detector = FindsPatches()
    look(detector, image_of([0, 0, 9, 9]), batch_size=8)
    # 5 columns of 4 rows (steps of at most 70 pixels) and the whole.
    assert [len(batch) for batch in detector.batches] == [8, 8, 5]
    assert detector.batches[-1][-1] == (250, 330)


@pytest.mark.parametrize(
    ("height", "width", "size", "overlap"),
    [(100, 101, 100, 0.0), (64, 1000, 64, 0.9), (333, 777, 128, 0.2), (50, 700, 128, 0.35)],
)
def test_tiles_cover_the_image_and_overlap_as_asked(height, width, size, overlap):
    *tiles, whole = tile_image(height, width, size, overlap)
    seen = torch.zeros(height, width, dtype=torch.bool)
    for left, top, right, bottom, *_ in tiles:
        assert (bottom - top, right - left) == (min(size, height), min(size, width))
        seen[top:bottom, left:right] = True
    assert seen.all()
    assert whole[:4] == (0, 0, width, height)
    lefts = sorted({tile.left for tile in tiles})
    steps = [after - before for before, after in itertools.pairwise(lefts)]
    assert max(steps) <= size * (1 - overlap) + 1  # begins are whole pixels


def augmented(detector, *, detections_per_img=100):
    return Augmented(
        detector, flip=True, scales=(), nms_thresh=0.5, detections_per_img=detections_per_img
    )


def test_boxes_of_the_flipped_image_are_turned_back_and_merged():
    image = image_of([10, 20, 60, 90], [200, 100, 230, 130])
    plain, both = FindsPatches()([image])[0], augmented(FindsPatches())([image])[0]
    assert torch.equal(plain["boxes"], both["boxes"])
    assert torch.equal(plain["scores"], both["scores"])


def test_what_only_the_flipped_image_shows_is_found_too():
    class FindsTheLeftHalf(FindsPatches):
        def _find(self, plane):
            return super()._find(plane[:, : plane.shape[1] // 2])

    image = image_of([10, 20, 60, 90], [200, 100, 230, 130])
    found = augmented(FindsTheLeftHalf())([image])[0]
    assert found["boxes"].tolist() == [[10, 20, 60, 90], [200, 100, 230, 130]]
    best = augmented(FindsTheLeftHalf(), detections_per_img=1)([image])[0]
    assert best["boxes"].tolist() == [[10, 20, 60, 90]]


@pytest.mark.parametrize("name", SMALL_DETECTORS)
def test_another_scale_is_that_of_a_detector_with_other_edges_and_the_same_weights(name):
    config = make_config(model={"detector": SMALL_DETECTORS[name]})
    detector = build_detector(config.model, num_classes=3).eval()
    size = detector.transform.min_size[-1], detector.transform.max_size
    scaled = at_scale(detector, 1.5)
    assert all(
        one is other for one, other in zip(detector.parameters(), scaled.parameters(), strict=True)
    )
    assert (detector.transform.min_size[-1], detector.transform.max_size) == size
    image = torch.rand(3, 48, 64)
    with torch.no_grad():
        found = scaled([image])[0]
        detector.set_test_size(short_edge=round(1.5 * size[0]), long_edge=round(1.5 * size[1]))
        expected = detector([image])[0]
    assert torch.equal(found["boxes"], expected["boxes"])


def predictor_with(**views):
    config = make_config(model={"detector": SMALL_DETECTORS["atss"] | {"score_thresh": 0.0}})
    torch.manual_seed(0)
    detector = build_detector(config.model, num_classes=2)
    predictor = Predictor(detector, CATEGORIES, device=torch.device("cpu"), resized_to=(64, 96))
    predictor.set_views(Views(**views), nms_thresh=0.6, detections_per_img=100)
    return predictor


@pytest.mark.parametrize("views", [{"tta": ""}, {"tta": "1"}, {"tile": 512}])
def test_without_another_view_the_result_is_the_plain_one(views):
    image = torch.rand(3, 90, 70)
    plain = predictor_with().predict(image, min_score=0)
    found = predictor_with(**views).predict(image, min_score=0)
    assert len(plain) > 0
    assert found.to_dict() == plain.to_dict()


def test_tiles_and_scales_go_together_and_the_weights_are_the_same():
    predictor = predictor_with(tile=64, tta="flip,1.2")
    found = predictor.predict(torch.rand(3, 90, 130), min_score=0, batch_size=4)
    assert len(found) > 0
    assert found.boxes.min() >= 0
    assert (found.boxes.max(axis=0) <= [130, 90, 130, 90]).all()
    assert predictor.fingerprint() == predictor_with().fingerprint()
    assert predictor.views.to_call() == {"tile": 64, "tile overlap": 0.2, "tta": ["flip", 1.2]}
