"""Statistics count objects by size at the detector's input, and read as a table and as numbers."""

import json

import numpy as np
import pytest

from dyhead_det.data.coco.dataset import load_coco
from dyhead_det.inspection.stats import Sizes, compute_stats

from conftest import make_config


def dataset(tmp_path, *boxes, size=(100, 80), crowds=()):
    """Return a data set with a box of class 0, 1, 0, 1, ... in an image of its own each."""
    path = tmp_path / "boxes.json"
    ids = range(1, len(boxes) + 1)
    document = {
        "images": [
            {"id": n, "file_name": f"{n}.png", "width": size[0], "height": size[1]} for n in ids
        ],
        "annotations": [
            {"id": n, "image_id": n, "category_id": n % 2, "bbox": box, "iscrowd": int(n in crowds)}
            for n, box in zip(ids, boxes, strict=True)
        ],
        "categories": [{"id": k, "name": name} for k, name in enumerate(("odd", "even", "none"))],
    }
    path.write_text(json.dumps(document))
    return load_coco(path, tmp_path, split="train")


def stats(found, **model):
    return compute_stats(found, make_config(model=model).model, config_name="tiny")


def test_sizes_are_those_at_the_input_and_crowds_do_not_count(tmp_path):
    found = dataset(tmp_path, [0, 0, 10, 10], [5, 5, 40, 40], [0, 0, 90, 70], crowds=[3])
    counted = stats(found, input={"short_edge": 160, "long_edge": 400})  # twice as large
    assert (counted.counts.small, counted.counts.medium) == (1, 1)
    assert counted.total.sizes == Sizes(small=1, medium=1, large=0)
    assert counted.total.num_images == counted.total.num_objects == 2
    np.testing.assert_allclose(counted.sides_wh, [[20, 20], [80, 80]])
    odd, even, none = counted.classes
    assert (odd.num_objects, odd.median_side) == (1, 80)
    assert (even.num_objects, even.median_side) == (1, 20)
    assert (none.num_objects, none.median_side, none.reached) == (0, None, None)
    bounded = stats(found, input={"short_edge": 160, "long_edge": 100})  # the longer edge decides
    np.testing.assert_allclose(bounded.sides_wh, [[10, 10], [40, 40]])


def test_a_box_that_no_anchor_meets_is_counted_with_its_class_and_size(tmp_path):
    found = dataset(tmp_path, [16, 16, 32, 32], [0, 30, 64, 1.5], size=(64, 64))
    counted = stats(found)
    assert [each.reached for each in counted.classes] == [0.0, 1.0, None]
    assert counted.total.reached == 0.5
    assert counted.reached_by_size == (0.0, 1.0, None)
    plain = json.loads(json.dumps(counted.to_plain()))
    assert plain["total"]["reached"] == 0.5
    assert plain["total"]["sizes"] == {"small": 1, "medium": 1, "large": 0}
    assert "reach 50.0% of the objects" in counted.text()


@pytest.mark.parametrize(
    ("detector", "words"),
    [
        ({"name": "fcos"}, "tiny has no anchors: fcos has points"),
        ({"name": "atss"}, "ATSS takes the best ones"),
    ],
)
def test_detectors_without_anchors_to_set_say_so(tmp_path, detector, words):
    counted = stats(dataset(tmp_path, [0, 0, 10, 10]), detector=detector)
    assert words in counted.text()
    assert counted.to_plain()["suggested_anchors"] is None


def test_a_suggestion_is_told_where_it_reaches_more_and_only_there(tmp_path):
    small = [[5 * n % 60, 7 * n % 50, 5, 5] for n in range(40)]
    large = {"short_edge": 240, "long_edge": 400}  # three times as large
    far = stats(dataset(tmp_path, *small), detector={"name": "retinanet"}, input=large)
    assert far.total.reached < 0.1
    assert "--set 'model.detector.anchor_sizes=[[" in far.text()
    assert far.to_plain()["suggested_anchors"]["reached"] > 0.5
    fitting = [[n, n, 64, 64] for n in range(10)]
    near = stats(dataset(tmp_path, *fitting), input={"short_edge": 80, "long_edge": 100})
    assert near.suggestion is None
    assert "--set" not in near.text()
