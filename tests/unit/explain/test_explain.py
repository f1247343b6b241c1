"""A detector explained: for every detector and both schemes, the numbers are its own."""

import numpy as np
import pytest
import torch

from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.errors import CheckpointError
from dyhead_det.explain.explain import explain
from dyhead_det.models.detectors import build_detector
from dyhead_det.prediction.predictor import Predictor

from conftest import SMALL_DETECTORS, make_config

IMAGE = torch.rand(3, 50, 90, generator=torch.Generator().manual_seed(0))


def predictor(dyhead, detector="fcos"):
    config = make_config(model={"detector": SMALL_DETECTORS[detector], "dyhead": dyhead})
    built = build_detector(config.model, num_classes=2, load_backbone_weights=False)
    categories = CategoryMap((Category("square", 7), Category("circle", 11)))
    return Predictor(built, categories, device=torch.device("cpu"))


@pytest.mark.parametrize("detector", SMALL_DETECTORS)
@pytest.mark.parametrize("scheme", ["levels", "stacked"])
def test_every_detector_is_explained_by_its_own_numbers(detector, scheme):
    found = explain(predictor({"num_blocks": 2, "scheme": scheme}, detector), IMAGE, min_score=0)
    assert found.difference < 1e-5
    assert found.num_blocks == 2
    assert found.image.shape == (50, 90, 3)
    names = found.levels
    assert len(names) == 5
    # 90 pixels become 64, and 50 become 36, without padding: 8 or 16 of them are two or more rows.
    height, width = found.before[names[0]].shape
    assert (height, width) == tuple(-(-size // found.strides[0]) for size in (36, 64))
    for number, name in enumerate(names):
        on_grid = found.before[names[found.grids[number]]].shape
        assert found.blocks[name].shape == (2, *on_grid)
        assert found.offsets[name].shape == (2, 18, *on_grid)
        assert found.masks[name].shape == (2, 9, *on_grid)
        assert found.after[name].shape == found.before[name].shape
    assert found.points_xy.shape == (2, 3, 9, 2)
    assert found.gates.shape == (2, 5, 3)
    assert np.isnan(found.gates[:, 0, 1]).all()  # nothing is finer than the finest
    assert np.isnan(found.gates[:, -1, 2]).all()
    assert np.isnan(found.gates).sum() == 4
    assert found.coefficients.shape == (2, 5, 4, 16)


def test_points_of_zeroed_offsets_are_a_grid_around_the_pixel_looked_at():
    found = explain(predictor({"num_blocks": 1}), IMAGE, at=(45, 25), level="p3")
    stride = 8 * 90 / 64  # in pixels of the image, which is wider than its resized copy
    itself = found.points_xy[0, 0]
    steps = np.diff(itself.reshape(3, 3, 2), axis=1)
    np.testing.assert_allclose(steps[..., 0], stride, rtol=1e-4)
    assert np.abs(itself[4] - (45, 25)).max() <= stride / 2 + 1e-3
    assert np.isnan(found.points_xy[0, 1]).all()
    # The coarser level's grid is twice as wide.
    coarser = found.points_xy[0, 2].reshape(3, 3, 2)
    np.testing.assert_allclose(np.diff(coarser, axis=1)[..., 0], 2 * stride, rtol=1e-4)
    np.testing.assert_allclose(found.points_mask[0, [0, 2]], 0.5)
    assert found.chosen is None


@pytest.mark.parametrize("scheme", ["levels", "stacked"])
def test_attentions_that_are_left_out_are_missing(scheme):
    found = explain(predictor({"num_blocks": 1, "scheme": scheme, "attention": ["scale"]}), IMAGE)
    assert found.coefficients is None
    assert found.offsets == {}
    assert np.isnan(found.points_mask).all()
    assert "coefficients" not in found.arrays()


def test_a_detector_without_dyhead_has_nothing_to_explain():
    with pytest.raises(CheckpointError, match="no DyHead"):
        explain(predictor(None), IMAGE)


def test_arrays_by_level_carry_its_name():
    arrays = explain(predictor({"num_blocks": 1}), IMAGE).arrays()
    assert {"before_p3", "blocks_p7", "offsets_p4", "points_xy", "gates", "image"} <= set(arrays)
    assert all(array.dtype != object for array in arrays.values())
