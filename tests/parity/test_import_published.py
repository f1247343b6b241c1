"""Imported models find what an independent transcription of the published ones finds."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import published_checkpoints as checkpoints
import published_images as reference_images
import published_reference as reference
import pytest
import torch
from matching import assert_same_detections
from PIL import Image

from dyhead_det.checkpoints.checkpoint import load_checkpoint
from dyhead_det.models.backbones.swin import SWIN_SHAPES, SwinShape
from dyhead_det.models.compat.resize_uint8 import resize_like_cv2
from dyhead_det.prediction.predictor import Predictor
from dyhead_det.pretrained.importing import import_weights

# What the published numbers are compared with: float rounding through some sixty layers.
FEATURE_TOLERANCE = 1e-4
BOX_TOLERANCE = 0.05
SCORE_TOLERANCE = 1e-3

SHORT_EDGE, LONG_EDGE = 96, 160


class Imported(NamedTuple):
    tensors: dict[str, torch.Tensor]
    predictor: Predictor


def imported(keys, folder: Path, *, wrapping: str) -> Imported:
    tensors = checkpoints.fill(keys, seed=1)
    torch.save({wrapping: tensors, "iteration": 7}, folder / "published.pth")
    report = import_weights(folder / "published.pth", folder / "ours.pt", format="auto")
    assert report.dropped["iteration"] == "no tensor"
    predictor = Predictor.from_checkpoint(
        load_checkpoint(folder / "ours.pt"),
        device=torch.device("cpu"),
        short_edge=SHORT_EDGE,
        long_edge=LONG_EDGE,
    )
    (folder / "published.pth").unlink()
    (folder / "ours.pt").unlink()
    return Imported(tensors, predictor)


@pytest.fixture(scope="module", params=["fasterrcnn", "retinanet", "atss", "atss_swin_t"])
def authors_model(request, tmp_path_factory):
    keys = checkpoints.authors_keys(request.param)
    return imported(keys, tmp_path_factory.mktemp(request.param), wrapping="model")


@pytest.fixture(scope="module", params=["r50", "r50_caffe"])
def mmdet_model(request, tmp_path_factory):
    keys = checkpoints.mmdet_keys(request.param)
    return imported(keys, tmp_path_factory.mktemp(request.param), wrapping="state_dict")


def synthetic_image(height=150, width=201):
    """Discs on a gradient."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], -1)
    for row, column, radius in ((40, 50, 30), (100, 140, 40), (30, 160, 15)):
        image[(y - row) ** 2 + (x - column) ** 2 < radius**2] = (200, 30, 60)
    return image.astype(np.uint8)


def photograph(real_data, index=0):
    paths = sorted((real_data / "coco_cc" / "images").iterdir())
    return np.array(Image.open(paths[index]).convert("RGB"))


def detect(predictor, images):
    """Return the maps behind DyHead and the predictions."""
    maps = {}
    hook = predictor.detector.backbone.register_forward_hook(
        lambda _module, _inputs, output: maps.update(output)
    )
    tensors = [torch.from_numpy(image).permute(2, 0, 1).float() / 255 for image in images]
    with torch.no_grad():
        predictions = predictor.detector(tensors)
    hook.remove()
    return list(maps.values()), predictions


def assert_same(expected, found):
    expected_maps, expected_detections = expected
    maps, predictions = found
    for expected_map, own in zip(expected_maps, maps, strict=True):
        difference = (own - expected_map).abs().max() / expected_map.abs().max()
        assert difference < FEATURE_TOLERANCE
    for detections, prediction in zip(expected_detections, predictions, strict=True):
        assert len(prediction["boxes"]) > 20
        assert_same_detections(
            detections,
            (prediction["boxes"], prediction["scores"], prediction["labels"]),
            box_tolerance=BOX_TOLERANCE,
            score_tolerance=SCORE_TOLERANCE,
        )


def authors_detect(model, images, *, short_edge=SHORT_EDGE, long_edge=LONG_EDGE):
    with torch.no_grad():
        return reference.detect_d2(
            model.tensors, images, short_edge=short_edge, long_edge=long_edge
        )


@pytest.mark.slow
@pytest.mark.real_data
def test_authors_models_find_the_same_in_a_photograph(authors_model, real_data):
    images = [photograph(real_data)]
    assert_same(authors_detect(authors_model, images), detect(authors_model.predictor, images))


@pytest.mark.slow
def test_authors_models_find_the_same_in_a_batch_of_two_sizes(authors_model):
    images = [synthetic_image(), synthetic_image(150, 160)]
    assert_same(authors_detect(authors_model, images), detect(authors_model.predictor, images))


@pytest.mark.slow
@pytest.mark.real_data
def test_mmdet_models_find_the_same_in_a_photograph(mmdet_model, real_data):
    images = [photograph(real_data, 1)]
    kernel = mmdet_model.tensors["bbox_head.atss_cls.weight"].shape[-1]

    def resize_cv2(image, size_hw):  # compared with the reference in its own test
        pixels = resize_like_cv2(torch.from_numpy(image).permute(2, 0, 1), size_hw)
        return pixels.permute(1, 2, 0).numpy()

    with torch.no_grad():
        expected = reference.detect_mmdet(
            mmdet_model.tensors,
            images,
            short_edge=SHORT_EDGE,
            long_edge=LONG_EDGE,
            resize=resize_cv2 if kernel == 3 else reference_images.resize_pil,
        )
    assert_same(expected, detect(mmdet_model.predictor, images))


@pytest.mark.slow
def test_mmdet_swin_finds_the_same_where_windows_cover_small_maps(tmp_path, monkeypatch):
    # A Swin-L that is four times narrower and less deep: the same windows of 12 and names.
    shape = {"width": 48, "depths": (2, 2, 2, 2), "heads": (2, 4, 8, 16), "window": 12}
    monkeypatch.setitem(
        SWIN_SHAPES, "swin_l_w12", SwinShape(48, (2, 2, 2, 2), (2, 4, 8, 16), 12, 0.0)
    )
    keys = checkpoints.mmdet_keys("swin_l", shape)
    model = imported(keys, tmp_path, wrapping="state_dict")
    images = [synthetic_image()]
    with torch.no_grad():
        expected = reference.detect_mmdet(
            model.tensors,
            images,
            short_edge=SHORT_EDGE,
            long_edge=LONG_EDGE,
            resize=reference_images.resize_pil,
            swin_shape={name: shape[name] for name in ("depths", "heads", "window")},
        )
    assert_same(expected, detect(model.predictor, images))
